#include "placement/daemon/node_asker.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <atomic>
#include <chrono>
#include <set>
#include <utility>

#include "storage/base/trace_context.h"

namespace kdn {
namespace {

// Of the time, where a second round may be needed.
constexpr double kFirstRound = 0.7;

TierKind TierOf(v1::Tier tier) {
  switch (tier) {
    case v1::TIER_MEMORY:
      return TierKind::kMemory;
    case v1::TIER_DISK:
      return TierKind::kDisk;
    default:
      return TierKind::kColdDisk;
  }
}

}  // namespace

class NodeAsker::Call final : public std::enable_shared_from_this<Call> {
 public:
  Call(NodeAsker& asker, TopologyPtr topology, const SpaceId& space, std::vector<ChunkKey> keys, absl::Duration timeout,
       Done done)
      : asker_(asker),
        topology_(std::move(topology)),
        space_(space.bytes.begin(), space.bytes.end()),
        keys_(std::move(keys)),
        timeout_(timeout),
        started_(std::chrono::steady_clock::now()),
        done_(std::move(done)),
        held_(keys_.size()) {}

  void Start() {
    std::map<NodeSlot, std::vector<uint32_t>> questions;
    for (uint32_t chunk = 0; chunk < keys_.size(); ++chunk) {
      const Topology::ReaderList readers = topology_->Readers(keys_[chunk]);
      const size_t first = readers.settled == 0 ? readers.size() : readers.settled;
      for (const NodeSlot slot : readers.slots().first(first)) questions[slot].push_back(chunk);
      if (first < readers.size()) others_ = true;
    }
    Ask(questions, others_ ? kFirstRound * timeout_ : timeout_);
  }

 private:
  struct Question {
    grpc::ClientContext context;
    v1::LookupRequest request;
    v1::LookupResponse response;
    NodeSlot slot = kNoSlot;
    std::vector<uint32_t> chunks;
  };

  void Ask(const std::map<NodeSlot, std::vector<uint32_t>>& questions, absl::Duration timeout) {
    left_.store(questions.size() + 1, std::memory_order_relaxed);  // one for this function itself
    const auto began = std::chrono::steady_clock::now();
    for (const auto& [slot, chunks] : questions) {
      auto question = std::make_shared<Question>();
      question->slot = slot;
      question->chunks = chunks;
      question->request.set_space_id(space_);
      question->request.set_origin(v1::CALL_ORIGIN_NODE);  // the engine that is routed asks itself later
      std::string& bytes = *question->request.mutable_keys();
      bytes.reserve(chunks.size() * kDigestSize);
      for (const uint32_t chunk : chunks) bytes.append(keys_[chunk].bytes.begin(), keys_[chunk].bytes.end());
      question->context.AddMetadata(kTraceparentKey, FormatTraceparent(trace_));
      question->context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(timeout));
      const Stub stub = asker_.StubFor(topology_->NodeAt(slot)->address);
      stub->async()->Lookup(&question->context, &question->request, &question->response,
                            [self = shared_from_this(), question, stub, began](const grpc::Status& status) {
                              if (status.ok()) self->Answered(*question, std::chrono::steady_clock::now() - began);
                              self->OneDone();
                            });
    }
    OneDone();
  }

  void Answered(const Question& question, std::chrono::steady_clock::duration took) {
    asker_.costs_.LookedUp(topology_->NodeAt(question.slot)->id, absl::FromChrono(took));
    if (static_cast<size_t>(question.response.chunks_size()) != question.chunks.size()) return;  // no answer to this
    MutexLock lock(mu_);
    for (size_t i = 0; i < question.chunks.size(); ++i) {
      const v1::ChunkFound& found = question.response.chunks(static_cast<int>(i));
      if (found.miss() != v1::MISS_REASON_UNSPECIFIED) continue;
      NodeHolding& holding = held_[question.chunks[i]];
      holding.holders.push_back({.slot = question.slot, .tier = TierOf(found.tier())});
      holding.encoded_bytes = found.encoded_bytes();
    }
  }

  void OneDone() {
    if (left_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const absl::Duration left = timeout_ - absl::FromChrono(std::chrono::steady_clock::now() - started_);
    if (std::exchange(others_, false) && left > absl::ZeroDuration()) {
      std::map<NodeSlot, std::vector<uint32_t>> questions;
      {
        MutexLock lock(mu_);
        for (uint32_t chunk = 0; chunk < keys_.size(); ++chunk) {
          if (!held_[chunk].holders.empty()) continue;
          const Topology::ReaderList readers = topology_->Readers(keys_[chunk]);
          if (readers.settled == 0) continue;  // all were asked
          for (const NodeSlot slot : readers.slots().subspan(readers.settled)) questions[slot].push_back(chunk);
        }
      }
      if (!questions.empty()) return Ask(questions, left);
    }
    std::vector<NodeHolding> held;
    {
      MutexLock lock(mu_);
      held = std::move(held_);
    }
    done_(std::move(held));
  }

  NodeAsker& asker_;
  const TopologyPtr topology_;
  const std::string space_;
  const std::vector<ChunkKey> keys_;
  const absl::Duration timeout_;
  const std::chrono::steady_clock::time_point started_;
  const Done done_;
  const TraceContext trace_ = CurrentOrNewTrace();  // the second round begins on another thread
  bool others_ = false;                             // a second round may be needed; touched between rounds only
  std::atomic<size_t> left_{0};
  Mutex mu_;
  std::vector<NodeHolding> held_ ABSL_GUARDED_BY(mu_);
};

void NodeAsker::Ask(TopologyPtr topology, const SpaceId& space, std::vector<ChunkKey> keys, absl::Duration timeout,
                    Done done) {
  std::make_shared<Call>(*this, std::move(topology), space, std::move(keys), timeout, std::move(done))->Start();
}

NodeAsker::Stub NodeAsker::StubFor(const std::string& address) {
  MutexLock lock(mu_);
  Stub& stub = stubs_[address];
  if (stub == nullptr) {
    stub = v1::NodeService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  }
  return stub;
}

void NodeAsker::Keep(const Topology& topology) {
  std::set<std::string> addresses;
  for (const NodeInfo& node : topology.parts().nodes) addresses.insert(node.address);
  MutexLock lock(mu_);
  std::erase_if(stubs_, [&](const auto& entry) { return !addresses.contains(entry.first); });
}

}  // namespace kdn
