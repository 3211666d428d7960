#include "storage/base/machine_id.h"

#include <fstream>

namespace kdn {

const std::string& MachineId() {
  static const auto& id = *new std::string([] {
    std::string text;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> text;
    return text;
  }());
  return id;
}

}  // namespace kdn
