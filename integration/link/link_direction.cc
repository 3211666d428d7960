#include "integration/link/link_direction.h"

#include <algorithm>

namespace kdn {

void LinkDirection::SetOptions(const LinkOptions& options) {
  shaper_.SetOptions(options);
  window_ = options.window_bytes;
}

void LinkDirection::Join(LinkFlow& flow, LinkTime now) {
  if (flow.in_turn_ || !flow.CanSend(window_)) return;
  flow.in_turn_ = true;
  turns_.push_back({.flow = &flow, .ready = now});
}

void LinkDirection::Leave(LinkFlow& flow) {
  if (flow.in_turn_) std::erase_if(turns_, [&](const Turn& turn) { return turn.flow == &flow; });
  flow.in_turn_ = false;
  if (flow.on_link()) arriving_.erase({flow.next_arrival(), &flow});
}

void LinkDirection::Advance(LinkTime now, std::vector<LinkFlow*>& moved) {
  while (!turns_.empty() && shaper_.free_at() <= now) {
    const Turn turn = turns_.front();
    turns_.pop_front();
    turn.flow->in_turn_ = false;
    if (!turn.flow->CanSend(window_)) continue;  // the window has been made smaller
    SendSlice(turn);
    moved.push_back(turn.flow);
  }
  while (!arriving_.empty() && arriving_.begin()->first <= now) {
    LinkFlow* const flow = arriving_.begin()->second;
    arriving_.erase(arriving_.begin());
    flow->Arrive(now);
    if (flow->on_link()) arriving_.insert({flow->next_arrival(), flow});
    moved.push_back(flow);
  }
}

LinkTime LinkDirection::next() const {
  const LinkTime sends = turns_.empty() ? LinkTime::max() : shaper_.free_at();
  const LinkTime arrives = arriving_.empty() ? LinkTime::max() : arriving_.begin()->first;
  return std::min(sends, arrives);
}

void LinkDirection::SendSlice(Turn turn) {
  LinkFlow& flow = *turn.flow;
  const size_t bytes = std::min(flow.waiting(), shaper_.slice_bytes());
  const bool was_on_link = flow.on_link();
  flow.Send(bytes, shaper_.Send(bytes, flow.waiting() - bytes, turn.ready));
  if (!was_on_link) arriving_.insert({flow.next_arrival(), &flow});
  if (!flow.CanSend(window_)) return;
  flow.in_turn_ = true;
  turns_.push_back(turn);
}

}  // namespace kdn
