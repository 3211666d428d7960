// UniqueFd: a file descriptor that is closed when its owner goes.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_BASE_UNIQUE_FD_H_
#define KDN_STORAGE_BASE_UNIQUE_FD_H_

#include <unistd.h>

#include <utility>

namespace kdn {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~UniqueFd() { Close(); }

  // -1 when there is none.
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  // Gives it up unclosed.
  int Release() { return std::exchange(fd_, -1); }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

}  // namespace kdn

#endif  // KDN_STORAGE_BASE_UNIQUE_FD_H_
