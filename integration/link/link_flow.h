// LinkFlow: how far the bytes of one connection have come on one way. Numbers alone; the bytes are held elsewhere.
//
//   read from the sender -> waiting -> on the link -> arrived -> written to the receiver
//
// The end of the sender's stream takes the same way behind its last byte.
//
// Thread-safety: one thread at a time.
#ifndef KDN_INTEGRATION_LINK_LINK_FLOW_H_
#define KDN_INTEGRATION_LINK_LINK_FLOW_H_

#include <cstddef>
#include <deque>

#include "integration/link/link_shaper.h"

namespace kdn {

class LinkFlow {
 public:
  LinkFlow() = default;
  LinkFlow(const LinkFlow&) = delete;
  LinkFlow& operator=(const LinkFlow&) = delete;

  void OnRead(size_t bytes) { waiting_ += bytes; }
  void OnEnd() { ended_ = true; }
  // Puts `bytes` of those that wait on the link, and the end when it is next. They arrive at `due`, or with what was
  // sent before where that is later: TCP keeps the order.
  void Send(size_t bytes, LinkTime due);
  // Takes from the link what is due.
  void Arrive(LinkTime now);
  void OnWritten(size_t bytes) { arrived_ -= bytes; }

  size_t waiting() const { return waiting_; }
  size_t arrived() const { return arrived_; }
  bool ended() const { return ended_; }
  // Something, be it only the end, may be sent: fewer bytes than `window` are on the link, and the receiver takes what
  // arrives.
  bool CanSend(size_t window) const;
  // The end has arrived, and everything before it is written.
  bool finished() const { return end_arrived_ && arrived_ == 0; }

  bool on_link() const { return !arrivals_.empty(); }
  // When the next bytes arrive; something is on_link().
  LinkTime next_arrival() const { return arrivals_.front().due; }

 private:
  friend class LinkDirection;

  struct Arrival {
    size_t bytes;
    bool end;
    LinkTime due;
  };

  size_t waiting_ = 0;
  size_t on_link_ = 0;
  size_t arrived_ = 0;
  bool ended_ = false;
  bool end_sent_ = false;
  bool end_arrived_ = false;
  bool in_turn_ = false;  // LinkDirection's: the flow waits for its turn
  std::deque<Arrival> arrivals_;
};

}  // namespace kdn

#endif  // KDN_INTEGRATION_LINK_LINK_FLOW_H_
