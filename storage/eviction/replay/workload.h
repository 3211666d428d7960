// Workloads: generated traces in the format of trace.h, for judging policies on more than the one trace at hand.
//
// Each workload is a simulation of users or programs over an hour: what they send, how long they think, what they
// share. Its nominal parameters are plain guesses of what such services look like; every one of them is multiplied by a
// factor between 1/2 and 2 that the seed decides, so that another seed is another service, not another draw from the
// same one. The same seed gives the same trace on every machine.
//
// Thread-safety: pure functions.
#ifndef KDN_STORAGE_EVICTION_REPLAY_WORKLOAD_H_
#define KDN_STORAGE_EVICTION_REPLAY_WORKLOAD_H_

#include <cstdint>
#include <string_view>

#include "storage/eviction/replay/trace.h"

namespace kdn::replay {

enum class Workload : uint8_t {
  kChat,   // conversations of several turns, with time to think between them
  kAgent,  // tool loops: long shared system prompts, many quick steps over a growing context, sub-agents
  kRag,    // questions over popular documents (Zipf), some with follow-ups
  kBatch,  // offline scans over documents that come once, or a few times in a row, beside a little chat
  kMix,    // all of the above at once
  kDrift,  // documents whose popularity moves on, while chat grows
};
inline constexpr Workload kAllWorkloads[] = {Workload::kChat,  Workload::kAgent, Workload::kRag,
                                             Workload::kBatch, Workload::kMix,   Workload::kDrift};

std::string_view WorkloadName(Workload workload);

// Named "chat-7" for seed 7.
Trace GenerateTrace(Workload workload, uint64_t seed);

}  // namespace kdn::replay

#endif  // KDN_STORAGE_EVICTION_REPLAY_WORKLOAD_H_
