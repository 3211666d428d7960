#include "placement/registry/registry_state.h"

#include <utility>

#include "storage/base/status.h"

namespace kdn {

absl::StatusOr<RegistryStep> RegistryState::PlanChange(const Change& change) const {
  for (const Change::Condition& condition : change.conditions) {
    if (const Revision now = RevisionOf(condition.key); now != condition.revision) {
      return absl::AbortedError(fmt::format("registry: '{}' is at revision {}, not {}; read it again", condition.key,
                                            now, condition.revision));
    }
  }
  for (const Change::Put& put : change.puts) {
    if (put.lease != 0 && !leases_.contains(put.lease)) {
      return NotFound("registry: lease {} is over, and '{}' was to be under it; take a new one", put.lease, put.key);
    }
  }
  RegistryStep step{.revision = revision_ + 1};
  for (const Change::Put& put : change.puts) {
    step.puts.push_back({.key = put.key, .value = put.value, .revision = step.revision, .lease = put.lease});
  }
  for (const std::string& key : change.deletes) {
    if (records_.contains(key)) step.deletes.push_back(key);
  }
  if (step.puts.empty() && step.deletes.empty()) step.revision = revision_;
  return step;
}

RegistryStep RegistryState::PlanGrant(const LeaseTerm& lease) const {
  return {.revision = revision_, .granted = {lease}};
}

absl::StatusOr<RegistryStep> RegistryState::PlanEnd(LeaseId lease) const {
  const auto it = leases_.find(lease);
  if (it == leases_.end()) return NotFound("registry: lease {} is over", lease);
  RegistryStep step{.revision = revision_, .ended = {lease}};
  step.deletes.assign(it->second.keys.begin(), it->second.keys.end());
  if (!step.deletes.empty()) ++step.revision;
  return step;
}

void RegistryState::Apply(const RegistryStep& step) {
  for (const LeaseTerm& lease : step.granted) leases_.emplace(lease.id, Held{.seconds = lease.seconds});
  for (const Record& put : step.puts) {
    Record& record = records_[put.key];
    Detach(record);
    record = put;
    if (record.lease != 0) leases_[record.lease].keys.insert(record.key);
  }
  for (const std::string& key : step.deletes) Erase(key);
  for (const LeaseId lease : step.ended) leases_.erase(lease);
  revision_ = step.revision;
}

absl::Status RegistryState::RestoreLease(const LeaseTerm& lease) {
  if (lease.id <= 0) return DataLoss("lease {} cannot be", lease.id);
  if (lease.seconds < 1 || lease.seconds > absl::ToInt64Seconds(kMaxRegistryLeaseTtl)) {
    return DataLoss("lease {} is of {} seconds", lease.id, lease.seconds);
  }
  leases_.emplace(lease.id, Held{.seconds = lease.seconds});
  return absl::OkStatus();
}

absl::Status RegistryState::RestoreRecord(Record record) {
  if (record.key.empty() || record.key.size() > kMaxRegistryKeyBytes || record.value.size() > kMaxRegistryValueBytes) {
    return DataLoss("the record '{}' is over the limits of a registry", record.key);
  }
  if (record.revision < 1 || record.revision > revision_) {
    return DataLoss("the record '{}' has revision {}, and the registry has {}", record.key, record.revision, revision_);
  }
  if (record.lease != 0) {
    const auto lease = leases_.find(record.lease);
    if (lease == leases_.end()) {
      return DataLoss("the record '{}' is under lease {}, which is not there", record.key, record.lease);
    }
    lease->second.keys.insert(record.key);
  }
  std::string key = record.key;
  records_.emplace(std::move(key), std::move(record));
  return absl::OkStatus();
}

Snapshot RegistryState::Read(std::string_view prefix) const {
  Snapshot snapshot{.revision = revision_};
  for (auto it = records_.lower_bound(prefix); it != records_.end() && it->first.starts_with(prefix); ++it) {
    snapshot.records.push_back(it->second);
  }
  return snapshot;
}

int64_t RegistryState::SecondsOf(LeaseId lease) const {
  const auto it = leases_.find(lease);
  return it == leases_.end() ? 0 : it->second.seconds;
}

std::vector<LeaseTerm> RegistryState::Leases() const {
  std::vector<LeaseTerm> leases;
  leases.reserve(leases_.size());
  for (const auto& [id, held] : leases_) leases.push_back({.id = id, .seconds = held.seconds});
  return leases;
}

Revision RegistryState::RevisionOf(std::string_view key) const {
  const auto it = records_.find(key);
  return it == records_.end() ? 0 : it->second.revision;
}

void RegistryState::Detach(const Record& record) {
  if (record.lease == 0) return;
  if (const auto lease = leases_.find(record.lease); lease != leases_.end()) lease->second.keys.erase(record.key);
}

void RegistryState::Erase(std::string_view key) {
  const auto it = records_.find(key);
  if (it == records_.end()) return;
  Detach(it->second);
  records_.erase(it);
}

std::vector<RegistryEvent> EventsOf(const RegistryStep& step, std::string_view prefix) {
  std::vector<RegistryEvent> events;
  for (const Record& put : step.puts) {
    if (put.key.starts_with(prefix)) events.push_back({.record = put});
  }
  for (const std::string& key : step.deletes) {
    if (key.starts_with(prefix)) events.push_back({.deleted = true, .record = {.key = key, .revision = step.revision}});
  }
  return events;
}

}  // namespace kdn
