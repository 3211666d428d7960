// LinkDirection: one way of the link, shared by the flows of all connections. Flows that have something to send are
// served in turn, a slice each, so that a small request waits for one slice of every other flow and no more.
//
//   flow.OnRead(bytes);
//   direction.Join(flow, now);
//   direction.Advance(now, moved);  // and again at direction.next()
//
// Thread-safety: one thread at a time.
#ifndef KDN_INTEGRATION_LINK_LINK_DIRECTION_H_
#define KDN_INTEGRATION_LINK_LINK_DIRECTION_H_

#include <cstddef>
#include <deque>
#include <set>
#include <utility>
#include <vector>

#include "integration/link/link_flow.h"
#include "integration/link/link_options.h"
#include "integration/link/link_shaper.h"

namespace kdn {

class LinkDirection {
 public:
  LinkDirection(LinkWay way, const LinkOptions& options) : shaper_(way, options), window_(options.window_bytes) {}

  // Afterwards flows that the old window held back have to Join again.
  void SetOptions(const LinkOptions& options);
  // Until then nothing is sent.
  void HoldUntil(LinkTime time) { shaper_.HoldUntil(time); }

  // The flow may have something to send since `now`: call after it was read from, and after it was written from.
  void Join(LinkFlow& flow, LinkTime now);
  // Forgets the flow.
  void Leave(LinkFlow& flow);

  // Sends and lets arrive whatever is due. Appends the flows that it moved, some perhaps several times.
  void Advance(LinkTime now, std::vector<LinkFlow*>& moved);
  // When Advance has something to do next; LinkTime::max(): not before a flow joins.
  LinkTime next() const;

 private:
  struct Turn {
    LinkFlow* flow;
    LinkTime ready;  // since when it has had something to send
  };

  void SendSlice(Turn turn);

  LinkShaper shaper_;
  size_t window_;
  std::deque<Turn> turns_;                             // the next one first
  std::set<std::pair<LinkTime, LinkFlow*>> arriving_;  // the flows with something on the link, by their next arrival
};

}  // namespace kdn

#endif  // KDN_INTEGRATION_LINK_LINK_DIRECTION_H_
