// What stands between the node that a group of chunks is asked from and the sink that they go to. Both kinds keep back
// the misses that another reader may turn into hits, and know which chunks have begun.
//
// Thread-safety: one thread at a time.
#ifndef KDN_KDN_CLIENT_CLUSTER_READER_SINK_H_
#define KDN_KDN_CLIENT_CLUSTER_READER_SINK_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "kdn-client/async/fetch_delivery.h"
#include "kdn-client/transport.h"

namespace kdn {

// Numbers the chunks of a group as the sink of the whole fetch does.
class GroupSink final : public SlabSink {
 public:
  GroupSink(SlabSink& next, std::vector<uint32_t> chunks) : next_(next), chunks_(std::move(chunks)) {}

  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override {
    return chunk < chunks_.size() && next_.OnChunk(chunks_[chunk], manifest, tier);
  }
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override {
    if (chunk < chunks_.size()) next_.OnPart(chunks_[chunk], slab, offset, part);
  }
  MutableByteSpan Room(size_t chunk, uint32_t slab) override {
    if (chunk >= chunks_.size()) return {};
    return next_.Room(chunks_[chunk], slab);
  }
  void OnMiss(size_t chunk, const Miss& miss) override {
    if (chunk < chunks_.size()) next_.OnMiss(chunks_[chunk], miss);
  }

 private:
  SlabSink& next_;
  const std::vector<uint32_t> chunks_;
};

// What a node said of the chunks of a group.
struct HeardChunks {
  explicit HeardChunks(size_t chunks) : begun(chunks), misses(chunks) {}

  std::vector<uint8_t> begun;  // OnChunk came
  std::vector<Miss> misses;    // that were kept back
};

// For chunks that can be had from more than one node: delivers what is heard. It offers no Room: what a node that
// breaks off has put there by itself could not be continued by the next.
class ReaderSink final : public SlabSink {
 public:
  // Chunk i of the call is chunk part[i] of the group. `claim` says whether this node is heard, and is asked once: at
  // the first chunk, and at the first miss where `misses_count`.
  ReaderSink(FetchDelivery& delivery, std::span<const size_t> part, HeardChunks& heard, std::function<bool()> claim,
             bool misses_count)
      : delivery_(delivery), part_(part), heard_(heard), claim_(std::move(claim)), misses_count_(misses_count) {}

  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override;
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override;
  void OnMiss(size_t chunk, const Miss& miss) override;

  bool is_heard() const { return asked_ && is_heard_; }

 private:
  bool IsHeard();

  FetchDelivery& delivery_;
  const std::span<const size_t> part_;
  HeardChunks& heard_;
  const std::function<bool()> claim_;
  const bool misses_count_;
  bool asked_ = false;
  bool is_heard_ = false;
};

// For chunks that can be had from one node alone: passes everything on, and knows what is still to come.
class LastReaderSink final : public SlabSink {
 public:
  // `kept_back`, by chunk: why it was missed elsewhere. `on_answer` is called at the first answer.
  LastReaderSink(SlabSink& next, LayerRange layers, std::vector<Miss> kept_back, std::function<void()> on_answer)
      : next_(next),
        layers_(layers),
        kept_back_(std::move(kept_back)),
        on_answer_(std::move(on_answer)),
        left_(kept_back_.size(), kAwaited) {}

  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override;
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override;
  MutableByteSpan Room(size_t chunk, uint32_t slab) override {
    if (chunk >= left_.size()) return {};
    return next_.Room(chunk, slab);
  }
  void OnMiss(size_t chunk, const Miss& miss) override;

  // The call is over: what has not come is missed for this reason.
  void Close(const Miss& why);

  // Chunks that came and that another reader did not hold.
  uint64_t second_reader() const { return second_reader_; }

 private:
  static constexpr uint64_t kAwaited = UINT64_MAX;

  void Answered();

  SlabSink& next_;
  const LayerRange layers_;
  const std::vector<Miss> kept_back_;
  const std::function<void()> on_answer_;
  std::vector<uint64_t> left_;  // bytes of each chunk that are still to come; 0: over
  bool answered_ = false;
  uint64_t second_reader_ = 0;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_CLUSTER_READER_SINK_H_
