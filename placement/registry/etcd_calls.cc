#include "placement/registry/etcd_calls.h"

#include <algorithm>
#include <random>
#include <utility>

#include "storage/base/backoff.h"
#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

constexpr int kPageRecords = 128;
constexpr size_t kMaxSnapshotBytes = size_t{512} << 20;
constexpr absl::Duration kFirstPause = absl::Milliseconds(25);
constexpr absl::Duration kLongestPause = absl::Milliseconds(400);

enum class Meaning {
  kAnswer,   // OK, or an error that the next member would give as well
  kNotDone,  // it certainly did nothing
  kUnknown,  // it may have been done
};

bool Says(const grpc::Status& status, std::string_view words) {
  return status.error_message().find(words) != std::string::npos;
}

// By etcd's own words (api/v3rpc/rpctypes/error.go) where the code alone does not tell.
Meaning MeaningOf(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::OK:
    case grpc::INVALID_ARGUMENT:
    case grpc::NOT_FOUND:
    case grpc::ALREADY_EXISTS:
    case grpc::PERMISSION_DENIED:
    case grpc::UNAUTHENTICATED:
    case grpc::FAILED_PRECONDITION:
    case grpc::OUT_OF_RANGE:
      return Meaning::kAnswer;
    case grpc::RESOURCE_EXHAUSTED:
      return Says(status, "too many requests") ? Meaning::kNotDone : Meaning::kAnswer;
    case grpc::UNIMPLEMENTED:
      return Meaning::kNotDone;
    default:
      return Says(status, "etcdserver: no leader") || Says(status, "proposal dropped") ? Meaning::kNotDone
                                                                                       : Meaning::kUnknown;
  }
}

absl::Status LeaseOver(LeaseId lease) { return NotFound("etcd: lease {} is over; take a new one", lease); }

}  // namespace

std::string EtcdRangeEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  if (prefix.empty()) return std::string(1, '\0');  // etcd's word for "to the last key"
  prefix.back() = static_cast<char>(static_cast<uint8_t>(prefix.back()) + 1);
  return prefix;
}

Record RecordFromEtcd(const etcdserverpb::KeyValue& kv, std::string_view prefix) {
  return {
      .key = kv.key().substr(prefix.size()), .value = kv.value(), .revision = kv.mod_revision(), .lease = kv.lease()};
}

absl::Status EtcdCalls::Call(absl::Time deadline, Interrupt& interrupt, Repeat repeat, Attempt attempt) {
  Backoff pause(kFirstPause, kLongestPause, std::random_device{}());
  absl::Status last = DeadlineExceeded("etcd at {}: the deadline has passed already", members_.names());
  for (size_t tries = 1;; ++tries) {
    const absl::Time now = Clock::Real().Now();
    if (now >= deadline) return last;
    const absl::Time until = std::min(deadline, now + call_timeout_);
    const EtcdMember& member = members_.Current();
    last = members_.Prepare(member, until, interrupt);
    if (last.ok()) {
      grpc::ClientContext context;
      PrepareEtcdCall(context, until);
      const Interrupt::Scope scope(interrupt, context);
      const grpc::Status status = attempt(member, context);
      const Meaning meaning = MeaningOf(status);
      if (status.ok()) return absl::OkStatus();
      last = EtcdError(member, status);
      if (meaning == Meaning::kAnswer) return last;
      if (meaning == Meaning::kUnknown && repeat == Repeat::kForbidden) {
        members_.Failed(member);
        const std::string why =
            fmt::format("{}; the commit may or may not have happened, read what there is now", MessageOf(last));
        return until == deadline && absl::IsDeadlineExceeded(last) ? DeadlineExceeded("{}", why)
                                                                   : Unavailable("{}", why);
      }
    }
    if (interrupt.fired()) return Cancelled("etcd at {}: given up", members_.names());
    members_.Failed(member);
    last = until == deadline && absl::IsDeadlineExceeded(last)
               ? last
               : Unavailable("etcd at {}: no member answers; the last one: {}", members_.names(), MessageOf(last));
    // Each member is asked once before there is a pause.
    if (tries % members_.size() == 0) interrupt.SleepFor(std::min(pause.Next(), deadline - now));
  }
}

absl::StatusOr<EtcdCalls::Head> EtcdCalls::ReadHead(absl::Time deadline, Interrupt& interrupt) {
  etcdserverpb::RangeRequest request;
  request.set_key(prefix_);
  request.set_count_only(true);
  etcdserverpb::RangeResponse response;
  KDN_RETURN_IF_ERROR(
      Call(deadline, interrupt, Repeat::kAllowed, [&](const EtcdMember& member, grpc::ClientContext& context) {
        return member.kv->Range(&context, request, &response);
      }));
  return Head{.revision = response.header().revision(), .cluster = response.header().cluster_id()};
}

absl::StatusOr<Snapshot> EtcdCalls::Read(std::string_view prefix, absl::Time deadline, Interrupt& interrupt,
                                         Head* head) {
  Head as_of;
  Snapshot snapshot;
  absl::Status status;
  do {
    snapshot = {};
    as_of = {};
    status = ReadPages(prefix, deadline, interrupt, snapshot, as_of);
    // The revision of the first page was compacted, or is one of another history, before the last page was read.
  } while (absl::IsOutOfRange(status) && Clock::Real().Now() < deadline);
  KDN_RETURN_IF_ERROR(status);
  if (head != nullptr) *head = as_of;
  return snapshot;
}

absl::Status EtcdCalls::ReadPages(std::string_view prefix, absl::Time deadline, Interrupt& interrupt,
                                  Snapshot& snapshot, Head& head) {
  etcdserverpb::RangeRequest request;
  request.set_key(prefix_ + std::string(prefix));
  request.set_range_end(EtcdRangeEnd(request.key()));
  request.set_limit(kPageRecords);
  size_t bytes = 0;
  while (true) {
    etcdserverpb::RangeResponse response;
    KDN_RETURN_IF_ERROR(
        Call(deadline, interrupt, Repeat::kAllowed, [&](const EtcdMember& member, grpc::ClientContext& context) {
          return member.kv->Range(&context, request, &response);
        }));
    if (head.revision == 0) {
      head = {.revision = response.header().revision(), .cluster = response.header().cluster_id()};
      snapshot.revision = head.revision;
      request.set_revision(head.revision);
    }
    for (const etcdserverpb::KeyValue& kv : response.kvs()) {
      bytes += kv.key().size() + kv.value().size();
      if (bytes > kMaxSnapshotBytes) {
        return ResourceExhausted("etcd at {}: more than {} MiB under '{}'; remove what does not belong there",
                                 members_.names(), kMaxSnapshotBytes >> 20, prefix_);
      }
      snapshot.records.push_back(RecordFromEtcd(kv, prefix_));
    }
    if (!response.more() || response.kvs().empty()) return absl::OkStatus();
    request.set_key(response.kvs().rbegin()->key() + '\0');
  }
}

absl::StatusOr<Revision> EtcdCalls::Commit(const Change& change, absl::Time deadline) {
  etcdserverpb::TxnRequest request;
  for (const Change::Condition& condition : change.conditions) {
    etcdserverpb::Compare& compare = *request.add_compare();
    compare.set_target(etcdserverpb::Compare::MOD);
    compare.set_result(etcdserverpb::Compare::EQUAL);
    compare.set_key(prefix_ + condition.key);
    compare.set_mod_revision(condition.revision);  // of a key that is not there, etcd says 0
    etcdserverpb::RangeRequest& look = *request.add_failure()->mutable_request_range();
    look.set_key(prefix_ + condition.key);
    look.set_keys_only(true);
  }
  for (const Change::Put& put : change.puts) {
    etcdserverpb::PutRequest& write = *request.add_success()->mutable_request_put();
    write.set_key(prefix_ + put.key);
    write.set_value(put.value);
    write.set_lease(put.lease);
  }
  for (const std::string& key : change.deletes) {
    request.add_success()->mutable_request_delete_range()->set_key(prefix_ + key);
  }
  etcdserverpb::TxnResponse response;
  Interrupt never;
  KDN_RETURN_IF_ERROR(
      Call(deadline, never, Repeat::kForbidden, [&](const EtcdMember& member, grpc::ClientContext& context) {
        return member.kv->Txn(&context, request, &response);
      }));
  if (response.succeeded()) return response.header().revision();
  for (int i = 0; i < std::min(response.responses_size(), static_cast<int>(change.conditions.size())); ++i) {
    const etcdserverpb::RangeResponse& look = response.responses(i).response_range();
    const Change::Condition& condition = change.conditions[static_cast<size_t>(i)];
    const Revision now = look.kvs().empty() ? 0 : look.kvs(0).mod_revision();
    if (now != condition.revision) {
      return absl::AbortedError(fmt::format("etcd: '{}' is at revision {}, not {}; read it again",
                                            prefix_ + condition.key, now, condition.revision));
    }
  }
  return absl::AbortedError("etcd: a condition does not hold; read again");
}

absl::StatusOr<LeaseId> EtcdCalls::Grant(int64_t seconds, absl::Time deadline) {
  etcdserverpb::LeaseGrantRequest request;
  request.set_ttl(seconds);
  etcdserverpb::LeaseGrantResponse response;
  Interrupt never;
  KDN_RETURN_IF_ERROR(
      Call(deadline, never, Repeat::kAllowed, [&](const EtcdMember& member, grpc::ClientContext& context) {
        return member.lease->LeaseGrant(&context, request, &response);
      }));
  if (!response.error().empty()) return Unavailable("etcd: no lease was given: {}", response.error());
  return response.id();
}

absl::StatusOr<absl::Duration> EtcdCalls::KeepAlive(LeaseId lease, absl::Time deadline) {
  etcdserverpb::LeaseKeepAliveRequest request;
  request.set_id(lease);
  etcdserverpb::LeaseKeepAliveResponse response;
  Interrupt never;
  KDN_RETURN_IF_ERROR(
      Call(deadline, never, Repeat::kAllowed, [&](const EtcdMember& member, grpc::ClientContext& context) {
        const auto stream = member.lease->LeaseKeepAlive(&context);
        bool answered = false;
        if (stream->Write(request) && stream->WritesDone()) {
          answered = stream->Read(&response);
          etcdserverpb::LeaseKeepAliveResponse more;
          while (answered && stream->Read(&more)) {
          }
        }
        const grpc::Status status = stream->Finish();
        if (answered) return grpc::Status::OK;
        return status.ok() ? grpc::Status(grpc::UNAVAILABLE, "it did not answer") : status;
      }));
  if (response.ttl() <= 0) return LeaseOver(lease);
  return absl::Seconds(response.ttl());
}

absl::Status EtcdCalls::Revoke(LeaseId lease, absl::Time deadline) {
  etcdserverpb::LeaseRevokeRequest request;
  request.set_id(lease);
  etcdserverpb::LeaseRevokeResponse response;
  Interrupt never;
  int asked = 0;
  const absl::Status status =
      Call(deadline, never, Repeat::kAllowed, [&](const EtcdMember& member, grpc::ClientContext& context) {
        ++asked;
        return member.lease->LeaseRevoke(&context, request, &response);
      });
  if (!absl::IsNotFound(status)) return status;
  return asked > 1 ? absl::OkStatus() : LeaseOver(lease);  // the first may have ended it, and its answer been lost
}

}  // namespace kdn
