// What a crash worker has acknowledged: it counts, a line for each count, until it is killed.
#ifndef KDN_TESTS_PLACEMENT_LAST_ACKNOWLEDGED_H_
#define KDN_TESTS_PLACEMENT_LAST_ACKNOWLEDGED_H_

#include <fstream>
#include <string>

namespace kdn {

// The last count in the file at `path`; a line that is not complete does not count.
inline int LastAcknowledged(const std::string& path) {
  std::ifstream file(path);
  int last = 0;
  for (std::string line; std::getline(file, line) && !file.eof();) last = std::stoi(line);
  return last;
}

}  // namespace kdn

#endif  // KDN_TESTS_PLACEMENT_LAST_ACKNOWLEDGED_H_
