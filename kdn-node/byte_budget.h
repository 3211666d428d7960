// ByteBudget: how many bytes all calls of one kind may hold at once, and ByteReservation: one call's share of it.
//
//   ByteBudget uploads(1ull << 30);
//   ByteReservation share(uploads);
//   if (!share.Grow(chunk_bytes)) return ResourceExhausted("…");
//   …                                 // given back when `share` goes
//
// Thread-safety: ByteBudget may be used from any thread; a reservation is for one thread at a time.
#ifndef KDN_KDN_NODE_BYTE_BUDGET_H_
#define KDN_KDN_NODE_BYTE_BUDGET_H_

#include <atomic>
#include <cstdint>
#include <utility>

namespace kdn {

class ByteBudget {
 public:
  explicit ByteBudget(uint64_t limit) : limit_(limit) {}
  ByteBudget(const ByteBudget&) = delete;
  ByteBudget& operator=(const ByteBudget&) = delete;

  uint64_t limit() const { return limit_; }
  uint64_t held() const { return held_.load(std::memory_order_relaxed); }

 private:
  friend class ByteReservation;

  bool TryTake(uint64_t bytes) {
    uint64_t held = held_.load(std::memory_order_relaxed);
    do {
      if (bytes > limit_ || held > limit_ - bytes) return false;
    } while (!held_.compare_exchange_weak(held, held + bytes, std::memory_order_relaxed));
    return true;
  }
  void GiveBack(uint64_t bytes) { held_.fetch_sub(bytes, std::memory_order_relaxed); }

  const uint64_t limit_;
  std::atomic<uint64_t> held_{0};
};

class ByteReservation {
 public:
  explicit ByteReservation(ByteBudget& budget) : budget_(&budget) {}
  ByteReservation(ByteReservation&& other) noexcept
      : budget_(other.budget_), bytes_(std::exchange(other.bytes_, uint64_t{0})) {}
  ByteReservation& operator=(ByteReservation&&) = delete;
  ~ByteReservation() { ShrinkTo(0); }

  uint64_t bytes() const { return bytes_; }

  // Takes `bytes` more, or nothing and returns false.
  [[nodiscard]] bool Grow(uint64_t bytes) {
    if (!budget_->TryTake(bytes)) return false;
    bytes_ += bytes;
    return true;
  }

  void ShrinkTo(uint64_t bytes) {
    if (bytes >= bytes_) return;
    budget_->GiveBack(bytes_ - bytes);
    bytes_ = bytes;
  }

 private:
  ByteBudget* budget_;
  uint64_t bytes_ = 0;
};

}  // namespace kdn

#endif  // KDN_KDN_NODE_BYTE_BUDGET_H_
