// SegmentSource: the cached KV of a prompt's segments, fetched layer by layer while the engine computes.
//
//   const std::vector<PromptSegment> segments = {{.begin = 0, .tokens = 512}, {.begin = 512, .tokens = 512}};
//   KDN_ASSIGN_OR_RETURN(const auto source, SegmentSource::Start(client, tokens, segments, kv, {.first_layer = 1}));
//   Blend(model, {.tokens = tokens, .runs = source->runs(), .kv = kv}, *source, {.schedule = schedule});
//   const SegmentReport report = source->Finish();
//
// A segment is tokens that were stored as a sequence of their own, or a piece of one that SegmentFinder found: its
// chunks are that sequence's chain's (ChunkChain), the last of which may be short. Chunks that are not held, or do not
// come within the deadline, are missing runs, or none at all, and so computed. The segment at the prompt's front is
// exact where its chunks are.
//
// Thread-safety: one thread at a time. It fetches on threads of its own.
#ifndef KDN_KDN_CLIENT_BLEND_SEGMENT_SOURCE_H_
#define KDN_KDN_CLIENT_BLEND_SEGMENT_SOURCE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kdn-client/blend/blender.h"
#include "kdn-client/cancellation.h"
#include "kdn-client/client.h"

namespace kdn {

// Tokens [begin, begin + tokens) of a prompt: a sequence that was stored as it is, or a piece of one.
struct PromptSegment {
  uint32_t begin = 0;
  uint32_t tokens = 0;
  // The whole sequence as it was stored, of which these are tokens [source, source + tokens); empty: they are all of
  // it. Of chunks at the piece's ends its tokens are taken; a chunk of which it has less than a quarter is left, and
  // these tokens are computed. Outlives Start.
  std::span<const Token> stored = {};
  uint32_t source = 0;
};

struct SegmentOptions {
  absl::Duration deadline = absl::Seconds(5);  // for the lookup and everything fetched
  // The schedule's first check: before it, KV that is not exact is not needed, and not fetched. UINT32_MAX: never, as
  // everything is computed.
  uint32_t first_layer = 0;
  // Below kExact, lossy KV is taken, and no run is called exact.
  Fidelity least = Fidelity::kExact;
};

struct SegmentReport {
  size_t chunks = 0;            // that the segments have
  size_t held = 0;              // that the lookup found …
  size_t used = 0;              // … and that came
  std::vector<TierKind> tiers;  // of each that came
  std::vector<Miss> misses;     // of each that was not held or did not come
  uint64_t encoded_bytes = 0;   // fetched
  uint64_t raw_bytes = 0;
  absl::Duration lookup;
  absl::Duration load;  // from the first fetch's start to the last one's end
};

class SegmentSource final : public BlendSource {
 public:
  // Looks up the chunks of `segments`, which ascend and do not overlap, and begins to fetch what is held. `client`, the
  // memory of `kv` and its block table outlive the source. INVALID_ARGUMENT naming the segment that overlaps another,
  // ends beyond the prompt or is not the piece that it says it is, and as Client::Fetch about the memory.
  static absl::StatusOr<std::unique_ptr<SegmentSource>> Start(Client& client, std::span<const Token> tokens,
                                                              std::span<const PromptSegment> segments, KvLayout kv,
                                                              const SegmentOptions& options);
  // Gives up what is still under way, and waits until nothing writes to the memory any more.
  ~SegmentSource() override;
  SegmentSource(const SegmentSource&) = delete;
  SegmentSource& operator=(const SegmentSource&) = delete;

  // What is held, by chunk; ready for Blend.
  std::span<const ReusedRun> runs() const { return runs_; }
  // Where the lookup found each of them.
  std::span<const TierKind> tiers() const { return tiers_; }

  absl::Status Await(uint32_t layer, std::vector<uint32_t>& missing) override;

  // Gives up what is still under way. To be called once.
  SegmentReport Finish();

 private:
  // Chunks that are fetched together: exact ones in all layers, others from the first check on.
  class Load;

  SegmentSource() = default;

  std::vector<ReusedRun> runs_;
  std::vector<TierKind> tiers_;
  std::vector<std::unique_ptr<Load>> loads_;
  SegmentReport report_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_BLEND_SEGMENT_SOURCE_H_
