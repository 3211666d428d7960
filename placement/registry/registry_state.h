// RegistryState: what a registry of our own holds, and the rules by which it changes. No threads, no clock, no disk.
//
//   KDN_ASSIGN_OR_RETURN(const RegistryStep step, state.PlanChange(change));
//   state.Apply(step);
//
// Planning changes nothing. A step that was planned on a state may be applied to it as long as nothing else was; that
// keeps "check, write to disk, show to readers" apart.
//
// Thread-safety: one thread at a time.
#ifndef KDN_PLACEMENT_REGISTRY_REGISTRY_STATE_H_
#define KDN_PLACEMENT_REGISTRY_REGISTRY_STATE_H_

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "placement/registry/registry.h"

namespace kdn {

struct LeaseTerm {
  LeaseId id = 0;
  int64_t seconds = 0;
};

// One step of a registry's history: everything in it happens at once.
struct RegistryStep {
  Revision revision = 0;  // of the registry after it; grows if and only if records change
  std::vector<Record> puts = {};
  std::vector<std::string> deletes = {};  // of records that are there
  std::vector<LeaseTerm> granted = {};
  std::vector<LeaseId> ended = {};
};

class RegistryState {
 public:
  // The errors of Registry::Commit, for a change that has passed CheckChange.
  absl::StatusOr<RegistryStep> PlanChange(const Change& change) const;
  // `lease.id` must not be held.
  RegistryStep PlanGrant(const LeaseTerm& lease) const;
  // NOT_FOUND: it is over.
  absl::StatusOr<RegistryStep> PlanEnd(LeaseId lease) const;
  void Apply(const RegistryStep& step);

  // For a journal that is read again. DATA_LOSS: it contradicts what is there already.
  absl::Status RestoreLease(const LeaseTerm& lease);
  absl::Status RestoreRecord(Record record);  // after its lease
  void RestoreRevision(Revision revision) { revision_ = revision; }

  Snapshot Read(std::string_view prefix) const;
  bool HasLease(LeaseId lease) const { return leases_.contains(lease); }
  // 0: it is over.
  int64_t SecondsOf(LeaseId lease) const;
  std::vector<LeaseTerm> Leases() const;
  Revision revision() const { return revision_; }
  size_t records() const { return records_.size(); }
  size_t leases() const { return leases_.size(); }

 private:
  struct Held {
    int64_t seconds = 0;
    std::set<std::string, std::less<>> keys = {};
  };

  Revision RevisionOf(std::string_view key) const;
  void Detach(const Record& record);
  void Erase(std::string_view key);

  absl::btree_map<std::string, Record, std::less<>> records_;
  absl::flat_hash_map<LeaseId, Held> leases_;
  Revision revision_ = 0;
};

// What watchers of `prefix` are told of `step`.
std::vector<RegistryEvent> EventsOf(const RegistryStep& step, std::string_view prefix);

}  // namespace kdn

#endif  // KDN_PLACEMENT_REGISTRY_REGISTRY_STATE_H_
