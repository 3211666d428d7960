#include "integration/link/link_flow.h"

namespace kdn {

void LinkFlow::Send(size_t bytes, LinkTime due) {
  waiting_ -= bytes;
  on_link_ += bytes;
  end_sent_ = ended_ && waiting_ == 0;
  if (on_link() && due <= arrivals_.back().due) {
    arrivals_.back().bytes += bytes;
    arrivals_.back().end = end_sent_;
  } else {
    arrivals_.push_back({.bytes = bytes, .end = end_sent_, .due = due});
  }
}

void LinkFlow::Arrive(LinkTime now) {
  while (on_link() && next_arrival() <= now) {
    on_link_ -= arrivals_.front().bytes;
    arrived_ += arrivals_.front().bytes;
    end_arrived_ = arrivals_.front().end;
    arrivals_.pop_front();
  }
}

bool LinkFlow::CanSend(size_t window) const {
  if (waiting_ == 0) return ended_ && !end_sent_;
  return arrived_ == 0 && on_link_ < window;
}

}  // namespace kdn
