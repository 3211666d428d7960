// MachineId: equal for processes on one running machine, different after every boot and on every other. Empty where the
// system does not tell.
//
// Thread-safety: any thread may call.
#ifndef KDN_STORAGE_BASE_MACHINE_ID_H_
#define KDN_STORAGE_BASE_MACHINE_ID_H_

#include <string>

namespace kdn {

const std::string& MachineId();

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_MACHINE_ID_H_
