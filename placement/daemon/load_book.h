// LoadBook: how busy nodes are, as they say with their heartbeats, to this daemon or to others. What this daemon hears
// is written to the registry for the others, now and then.
//
//   book.Heard("a", session, load);                       // a heartbeat
//   for (const LoadBook::Due& due : book.TakeDue(100)) …  // what should be written now
//   std::shared_ptr<const v1::NodeLoad> load = book.Find("a");
//
// Thread-safety: all methods may be called from any thread.
#ifndef KDN_PLACEMENT_DAEMON_LOAD_BOOK_H_
#define KDN_PLACEMENT_DAEMON_LOAD_BOOK_H_

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "kdn/v1/placement.pb.h"
#include "placement/registry/registry.h"
#include "storage/base/mutex.h"
#include "storage/base/steady_clock.h"

namespace kdn {

using LoadPtr = std::shared_ptr<const v1::NodeLoad>;
using Loads = std::map<std::string, LoadPtr, std::less<>>;  // by node id

class LoadBook {
 public:
  // Writes a node's load at most every `interval`. `clock` outlives the book.
  LoadBook(absl::Duration interval, const SteadyClock& clock) : interval_(interval), clock_(clock) {}

  // From the node itself; newer than anything that the registry says.
  void Heard(const std::string& id, LeaseId session, v1::NodeLoad load);
  // From the registry; null: deleted. Passed over while the node itself speaks to this daemon.
  void Told(const std::string& id, LoadPtr load);
  // Its session is over.
  void Gone(const std::string& id);

  LoadPtr Find(std::string_view id) const;  // null: unknown
  Loads All() const;

  struct Due {
    std::string id;
    LeaseId session = 0;
    LoadPtr load;
  };
  // What was heard, and not yet written for `interval`; at most `most`, longest waiting first not promised. Counts as
  // written from then on.
  std::vector<Due> TakeDue(size_t most);
  // When there will be something; the far future when there is nothing.
  SteadyClock::Point NextDue() const;

 private:
  struct Entry {
    LoadPtr load;
    LeaseId session = 0;
    bool heard = false;  // from the node itself
    bool unwritten = false;
    SteadyClock::Point heard_at = {};
    SteadyClock::Point write_at = {};
  };

  const absl::Duration interval_;
  const SteadyClock& clock_;
  mutable Mutex mu_;
  std::map<std::string, Entry, std::less<>> entries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace kdn

#endif  // KDN_PLACEMENT_DAEMON_LOAD_BOOK_H_
