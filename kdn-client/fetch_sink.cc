#include "kdn-client/fetch_sink.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "kdn-client/call_rules.h"
#include "kdn-client/decode_pool.h"
#include "kdn-client/processor_time.h"
#include "kdn-client/verifying_writer.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/format/codec.h"

namespace kdn {
namespace {

// Smaller slabs are decoded where they arrive: to wake another thread would take as long.
constexpr uint64_t kDecodeApartFrom = uint64_t{64} << 10;

// The first `size` bytes of `buffer`, which is made anew, without its bytes, where it is smaller.
MutableByteSpan AtLeast(uint64_t size, Buffer& buffer) {
  if (buffer.size() < size) buffer = Buffer(size);
  return buffer.span().first(size);
}

absl::Status VerifyChecksum(const SlabInfo& slab, uint64_t checksum) {
  if (checksum == slab.checksum) return absl::OkStatus();
  return DataLoss("checksum {:016x}, the manifest says {:016x}", checksum, slab.checksum);
}

// Verifies `encoded`, and puts what it holds into `place`; `scratch` is used where that is not in one piece.
absl::Status Decode(const SlabInfo& slab, const Codec& codec, const SlabPlace& place, ByteSpan encoded,
                    Buffer& scratch) {
  KDN_RETURN_IF_ERROR(VerifyChecksum(slab, SlabChecksum(encoded)));
  if (slab.codec == CodecId::kRaw) {
    place.Write(0, encoded);
    return absl::OkStatus();
  }
  const MutableByteSpan direct = place.Direct();
  if (!direct.empty()) return codec.Decode(slab.shape, slab.kind, encoded, direct);
  const MutableByteSpan decoded = AtLeast(slab.shape.RawSize(), scratch);
  KDN_RETURN_IF_ERROR(codec.Decode(slab.shape, slab.kind, encoded, decoded));
  place.Write(0, decoded);
  return absl::OkStatus();
}

}  // namespace

// What has become of each chunk. A chunk is one stream's at a time, so its arrival needs no lock.
class FetchSink::Arrivals {
 public:
  enum class Phase : uint8_t { kAwaited, kArriving, kHit, kMissed };
  struct Arrival {
    Phase phase = Phase::kAwaited;
    ManifestPtr manifest;
    uint32_t next_slab = 0;  // the slab that must come next, among those asked for
    uint32_t decoding = 0;   // slabs that came and are not in place yet
    ChunkOutcome outcome;
  };
  // A slab on its way to its place.
  struct Slab {
    size_t chunk = 0;
    const SlabInfo* info = nullptr;  // of the arrival's manifest
    const Codec* codec = nullptr;
    SlabPlace place;

    // Whether parts can be written as they come.
    bool Streams() const { return info->codec == CodecId::kRaw && !place.Converts(); }
  };

  Arrivals(const SpaceId& id, const KvSpace& space, std::span<const ChunkRef> chunks, const KvView& view, Want want);

  size_t size() const { return arrivals_.size(); }
  Arrival& operator[](size_t chunk) { return arrivals_[chunk]; }
  const Want& want() const { return want_; }

  Miss Examine(size_t chunk, const Manifest& manifest) const;
  // The first slab at or after `slab` that was asked for; the number of slabs when there is none.
  uint32_t NextWanted(const Manifest& manifest, uint32_t slab) const;
  Slab SlabOf(size_t chunk, const SlabInfo& info) const;
  // That a slab of `layer` is in its place.
  void CountSlab(uint32_t layer);
  // A chunk that has been decided stays as it is, and false is returned.
  bool Fail(size_t chunk, MissReason reason, std::string detail);

  void AddWorkApart(absl::Duration work);
  absl::Duration work_apart() const;
  std::vector<ChunkOutcome> TakeOutcomes();

 private:
  // `manifest` with slabs that have the heads alone that were asked for described as whole ones.
  Manifest Uncut(Manifest manifest) const;

  const SpaceId id_;
  const KvSpace& space_;
  const std::span<const ChunkRef> chunks_;
  const KvView& view_;
  const Want want_;
  std::vector<Arrival> arrivals_;
  std::vector<std::atomic<uint64_t>> awaited_;  // slabs of each layer, of all chunks
  Mutex on_layer_mu_;                           // one call of on_layer at a time
  mutable Mutex mu_;
  absl::Duration work_apart_ ABSL_GUARDED_BY(mu_);
};

// Slabs that come one after another, and what of them is being decoded.
class FetchSink::Stream final : public SlabSink {
 public:
  explicit Stream(Arrivals& arrivals) : arrivals_(arrivals) {}
  // Waits for what is being decoded.
  ~Stream() override { Settle(); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  std::unique_ptr<SlabSink> Fork() override { return std::make_unique<Stream>(arrivals_); }
  bool OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) override;
  MutableByteSpan Room(size_t chunk, uint32_t slab) override;
  void OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) override;
  void OnMiss(size_t chunk, const Miss& miss) override;

  // Waits for what is being decoded, and takes it.
  void Settle();

 private:
  using Phase = Arrivals::Phase;
  using Arrival = Arrivals::Arrival;
  using Slab = Arrivals::Slab;
  // The slab whose parts are arriving. Slabs come one after another, so there is one at most.
  struct OpenSlab : Slab {
    bool open = false;
    uint64_t received = 0;
  };
  // A buffer that was given out by Room.
  struct GivenRoom {
    uint64_t size;  // of the slab; the buffer may be larger
    Buffer buffer;
  };
  struct Decoded {
    Slab slab;
    ManifestPtr manifest;  // that the slab is described in
    absl::Status status;
    absl::Duration work;
    Buffer encoded;
  };

  void Begin(size_t chunk, const SlabInfo& info);
  // `room`: the buffer that the slab came into, once it is whole and `in_room`.
  void Append(ByteSpan part, bool in_room, Buffer room);
  // The open slab has arrived.
  Slab Close();
  void DecodeGathered(const Slab& slab, Buffer encoded);
  void Complete(const Slab& slab, const absl::Status& verified);
  void CompleteDecoded();
  void Fail(size_t chunk, MissReason reason, std::string detail);
  // Of at least `size` bytes.
  Buffer BufferOf(uint64_t size);
  // Whether `part` lies in the oldest room, and that room's buffer, if it is the room's end.
  Buffer TakeRoom(ByteSpan part, bool* in_room);

  Arrivals& arrivals_;
  OpenSlab open_;
  VerifyingWriter writer_;
  std::deque<GivenRoom> rooms_;  // in the order in which they were given out
  Buffer gathered_;              // of the open slab, where its parts are copied
  Buffer decoded_;               // reused from slab to slab
  std::vector<Buffer> spare_;
  size_t apart_ = 0;  // slabs given to other threads and not yet taken back from them

  Mutex mu_;
  CondVar decoded_one_;
  size_t decoding_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<Decoded> done_ ABSL_GUARDED_BY(mu_);
};

FetchSink::FetchSink(const SpaceId& id, const KvSpace& space, std::span<const ChunkRef> chunks, const KvView& view,
                     Want want)
    : arrivals_(std::make_unique<Arrivals>(id, space, chunks, view, std::move(want))),
      stream_(std::make_unique<Stream>(*arrivals_)) {}

FetchSink::~FetchSink() = default;

std::unique_ptr<SlabSink> FetchSink::Fork() { return stream_->Fork(); }
bool FetchSink::OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) {
  return stream_->OnChunk(chunk, manifest, tier);
}
MutableByteSpan FetchSink::Room(size_t chunk, uint32_t slab) { return stream_->Room(chunk, slab); }
void FetchSink::OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) {
  stream_->OnPart(chunk, slab, offset, part);
}
void FetchSink::OnMiss(size_t chunk, const Miss& miss) { stream_->OnMiss(chunk, miss); }

std::vector<ChunkOutcome> FetchSink::Finish(const absl::Status& fetch, absl::Duration* work_apart) && {
  stream_->Settle();
  if (work_apart != nullptr) *work_apart = arrivals_->work_apart();
  Miss cause = MissFromCall(fetch);
  if (fetch.ok()) cause = {MissReason::kProtocol, "the stream ended before the chunk was whole"};
  for (size_t i = 0; i < arrivals_->size(); ++i) arrivals_->Fail(i, cause.reason, cause.detail);
  return arrivals_->TakeOutcomes();
}

FetchSink::Arrivals::Arrivals(const SpaceId& id, const KvSpace& space, std::span<const ChunkRef> chunks,
                              const KvView& view, Want want)
    : id_(id),
      space_(space),
      chunks_(chunks),
      view_(view),
      want_(std::move(want)),
      arrivals_(chunks.size()),
      awaited_(want_.on_layer == nullptr ? 0 : LayerCount(space)) {
  if (want_.on_layer == nullptr) return;
  for (const SlabInfo& slab : SlabsOf(space, space.chunk_tokens)) {
    awaited_[slab.layer].fetch_add(chunks.size(), std::memory_order_relaxed);
  }
}

void FetchSink::Arrivals::CountSlab(uint32_t layer) {
  // What the other threads wrote of the layer is in place for whoever counts its last slab.
  if (want_.on_layer == nullptr || awaited_[layer].fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  MutexLock lock(on_layer_mu_);
  want_.on_layer(layer);
}

bool FetchSink::Arrivals::Fail(size_t chunk, MissReason reason, std::string detail) {
  Arrival& arrival = arrivals_[chunk];
  if (arrival.phase == Phase::kHit || arrival.phase == Phase::kMissed) return false;
  arrival.phase = Phase::kMissed;
  arrival.outcome.miss = {reason, std::move(detail)};
  return true;
}

void FetchSink::Arrivals::AddWorkApart(absl::Duration work) {
  MutexLock lock(mu_);
  work_apart_ += work;
}

absl::Duration FetchSink::Arrivals::work_apart() const {
  MutexLock lock(mu_);
  return work_apart_;
}

std::vector<ChunkOutcome> FetchSink::Arrivals::TakeOutcomes() {
  std::vector<ChunkOutcome> outcomes;
  outcomes.reserve(arrivals_.size());
  for (Arrival& arrival : arrivals_) outcomes.push_back(std::move(arrival.outcome));
  return outcomes;
}

Miss FetchSink::Arrivals::Examine(size_t chunk, const Manifest& manifest) const {
  const ChunkRef& asked = chunks_[chunk];
  if (manifest.space != id_) {
    return {MissReason::kWrongSpace, fmt::format("the chunk is of space {}, this client's is {}",
                                                 manifest.space.ToShortHex(), id_.ToShortHex())};
  }
  if (manifest.key != asked.key) {
    return {MissReason::kProtocol,
            fmt::format("chunk {} came where {} was asked for", manifest.key.ToShortHex(), asked.key.ToShortHex())};
  }
  if (manifest.parent != asked.parent || manifest.first_token != asked.first_token || manifest.tokens != asked.tokens) {
    return {MissReason::kGeometry,
            fmt::format("the chunk is tokens [{}, +{}) after {}, asked for were [{}, +{}) after {}",
                        manifest.first_token, manifest.tokens, manifest.parent.ToShortHex(), asked.first_token,
                        asked.tokens, asked.parent.ToShortHex())};
  }
  const bool all_heads = view_.heads() == HeadRange();
  if (const absl::Status fits = CheckGeometry(all_heads ? manifest : Uncut(manifest), id_, space_); !fits.ok()) {
    return {MissReason::kGeometry, MessageOf(fits)};
  }
  if (manifest.fidelity < want_.least) {
    return {MissReason::kFidelity, fmt::format("the chunk's fidelity is {}, asked for was at least {}",
                                               static_cast<int>(manifest.fidelity), static_cast<int>(want_.least))};
  }
  for (const SlabInfo& slab : manifest.slabs) {
    if (!want_.layers.Contains(slab.layer)) continue;
    const absl::StatusOr<const Codec*> codec = FindCodec(slab.codec);
    if (!codec.ok()) return {MissReason::kUnknownCodec, MessageOf(codec.status())};
    if ((*codec)->fidelity() < want_.least) {
      return {MissReason::kFidelity,
              fmt::format("layer {}: codec {} is less exact than asked for", slab.layer, (*codec)->name())};
    }
    if (slab.encoded_size == 0 || (slab.codec == CodecId::kRaw && slab.encoded_size != slab.shape.RawSize())) {
      return {MissReason::kGeometry,
              fmt::format("layer {}: a slab of {} bytes is stored as {} bytes by codec {}", slab.layer,
                          slab.shape.RawSize(), slab.encoded_size, (*codec)->name())};
    }
  }
  return {};
}

Manifest FetchSink::Arrivals::Uncut(Manifest manifest) const {
  const std::vector<SlabInfo> expected = SlabsOf(space_, manifest.tokens);
  for (size_t i = 0; i < std::min(expected.size(), manifest.slabs.size()); ++i) {
    if (!want_.layers.Contains(expected[i].layer)) continue;
    uint32_t& heads = manifest.slabs[i].shape.heads;
    if (heads == view_.HeadsIn(expected[i].layer)) heads = expected[i].shape.heads;
  }
  return manifest;
}

uint32_t FetchSink::Arrivals::NextWanted(const Manifest& manifest, uint32_t slab) const {
  while (slab < manifest.slabs.size() && !want_.layers.Contains(manifest.slabs[slab].layer)) ++slab;
  return slab;
}

FetchSink::Arrivals::Slab FetchSink::Arrivals::SlabOf(size_t chunk, const SlabInfo& info) const {
  const ChunkPlace place = want_.places.empty() ? ChunkPlace{.at = chunks_[chunk].first_token} : want_.places[chunk];
  return {.chunk = chunk, .info = &info, .codec = *FindCodec(info.codec), .place = view_.Place(info, place)};
}

bool FetchSink::Stream::OnChunk(size_t chunk, const ManifestPtr& manifest, TierKind tier) {
  if (chunk >= arrivals_.size()) return false;
  Arrival& arrival = arrivals_[chunk];
  if (arrival.phase == Phase::kArriving) Fail(chunk, MissReason::kProtocol, "the chunk was announced twice");
  if (arrival.phase != Phase::kAwaited) return false;

  Miss miss = arrivals_.Examine(chunk, *manifest);
  if (miss.reason != MissReason::kNone) {
    Fail(chunk, miss.reason, std::move(miss.detail));
    return false;
  }
  arrival.phase = Phase::kArriving;
  arrival.manifest = manifest;
  arrival.next_slab = arrivals_.NextWanted(*manifest, 0);
  arrival.outcome.tier = tier;
  return true;
}

MutableByteSpan FetchSink::Stream::Room(size_t chunk, uint32_t slab) {
  if (chunk >= arrivals_.size() || arrivals_[chunk].phase != Phase::kArriving) return {};
  const Manifest& manifest = *arrivals_[chunk].manifest;
  if (slab < arrivals_[chunk].next_slab || slab >= manifest.slabs.size()) return {};
  const SlabInfo& info = manifest.slabs[slab];
  if (!arrivals_.want().layers.Contains(info.layer)) return {};
  const Slab arriving = arrivals_.SlabOf(chunk, info);
  // To receive into memory that the cache does not hold, and then to read it for its checksum, costs twice as much as
  // to receive into a little memory that it does hold, and to write past it.
  if (arriving.Streams()) return {};
  rooms_.push_back({.size = info.encoded_size, .buffer = BufferOf(info.encoded_size)});
  return rooms_.back().buffer.span().first(info.encoded_size);
}

void FetchSink::Stream::OnPart(size_t chunk, uint32_t slab, uint64_t offset, ByteSpan part) {
  CompleteDecoded();
  bool in_room = false;
  Buffer room = TakeRoom(part, &in_room);
  if (chunk >= arrivals_.size() || arrivals_[chunk].phase != Phase::kArriving) return;
  if (open_.open && open_.chunk != chunk) {
    Fail(open_.chunk, MissReason::kProtocol,
         fmt::format("a slab of layer {} was cut short by chunk {}", open_.info->layer, chunk));
  }
  const Arrival& arrival = arrivals_[chunk];
  if (slab != arrival.next_slab) {
    return Fail(chunk, MissReason::kProtocol, fmt::format("slab {} came where {} must", slab, arrival.next_slab));
  }
  const SlabInfo& info = arrival.manifest->slabs[slab];
  const uint64_t received = open_.open ? open_.received : 0;
  if (offset != received || part.size() > info.encoded_size - received) {
    return Fail(chunk, MissReason::kProtocol,
                fmt::format("slab {}: {} bytes at {} came after {} of {} bytes", slab, part.size(), offset, received,
                            info.encoded_size));
  }
  if (!open_.open) Begin(chunk, info);
  Append(part, in_room, std::move(room));
}

void FetchSink::Stream::OnMiss(size_t chunk, const Miss& miss) {
  if (chunk >= arrivals_.size()) return;
  Fail(chunk, miss.reason == MissReason::kNone ? MissReason::kProtocol : miss.reason, miss.detail);
}

void FetchSink::Stream::Settle() {
  {
    MutexLock lock(mu_);
    while (decoding_ > 0) decoded_one_.Wait(mu_);
  }
  CompleteDecoded();
}

void FetchSink::Stream::Begin(size_t chunk, const SlabInfo& info) {
  static_cast<Slab&>(open_) = arrivals_.SlabOf(chunk, info);
  open_.open = true;
  open_.received = 0;
  if (open_.Streams()) writer_.Start(open_.place);
}

void FetchSink::Stream::Append(ByteSpan part, bool in_room, Buffer room) {
  const uint64_t size = open_.info->encoded_size;
  const uint64_t at = open_.received;
  open_.received += part.size();
  const bool last = open_.received == size;
  if (open_.Streams()) {
    writer_.Append(part);
    if (last) Complete(Close(), VerifyChecksum(*open_.info, writer_.Checksum()));
    return;
  }
  if (!in_room && part.size() == size) {
    const Slab slab = Close();
    return Complete(slab, Decode(*slab.info, *slab.codec, slab.place, part, decoded_));
  }
  if (!in_room) {
    if (at == 0) gathered_ = BufferOf(size);
    std::copy(part.begin(), part.end(), gathered_.data() + at);
  }
  if (last) DecodeGathered(Close(), in_room ? std::move(room) : std::move(gathered_));
}

FetchSink::Stream::Slab FetchSink::Stream::Close() {
  open_.open = false;
  Arrival& arrival = arrivals_[open_.chunk];
  arrival.next_slab = arrivals_.NextWanted(*arrival.manifest, arrival.next_slab + 1);
  return open_;
}

void FetchSink::Stream::DecodeGathered(const Slab& slab, Buffer encoded) {
  const uint64_t size = slab.info->encoded_size;
  bool apart = size >= kDecodeApartFrom;
  if (apart) {
    MutexLock lock(mu_);
    apart = decoding_ < 2 * DecodeThreads();
    if (apart) ++decoding_;
  }
  if (!apart) {
    Complete(slab, Decode(*slab.info, *slab.codec, slab.place, encoded.span().first(size), decoded_));
    spare_.push_back(std::move(encoded));
    return;
  }
  Arrival& arrival = arrivals_[slab.chunk];
  ++arrival.decoding;
  ++apart_;
  // The job holds the manifest that the slab is described in.
  auto job = std::make_shared<Decoded>(
      Decoded{.slab = slab, .manifest = arrival.manifest, .status = {}, .work = {}, .encoded = std::move(encoded)});
  RunOnDecodeThread([this, job = std::move(job), size] {
    const absl::Duration begin = ThreadProcessorTime();
    Buffer scratch;
    const Slab& of = job->slab;
    job->status = Decode(*of.info, *of.codec, of.place, job->encoded.span().first(size), scratch);
    job->work = ThreadProcessorTime() - begin;
    MutexLock lock(mu_);
    done_.push_back(std::move(*job));
    --decoding_;
    decoded_one_.NotifyAll();
  });
}

void FetchSink::Stream::CompleteDecoded() {
  if (apart_ == 0) return;  // as for all raw slabs: no lock for each of their parts
  std::vector<Decoded> done;
  {
    MutexLock lock(mu_);
    done.swap(done_);
  }
  if (done.empty()) return;
  absl::Duration work;
  for (Decoded& decoded : done) {
    --arrivals_[decoded.slab.chunk].decoding;
    --apart_;
    work += decoded.work;
    Complete(decoded.slab, decoded.status);
    spare_.push_back(std::move(decoded.encoded));
  }
  arrivals_.AddWorkApart(work);
}

void FetchSink::Stream::Complete(const Slab& slab, const absl::Status& verified) {
  Arrival& arrival = arrivals_[slab.chunk];
  if (arrival.phase != Phase::kArriving) return;
  if (!verified.ok()) {
    return Fail(slab.chunk, MissReason::kCorrupt, fmt::format("layer {}: {}", slab.info->layer, MessageOf(verified)));
  }
  arrival.outcome.encoded_bytes += slab.info->encoded_size;
  arrival.outcome.raw_bytes += slab.place.MemoryBytes();
  if (arrival.next_slab == arrival.manifest->slabs.size() && arrival.decoding == 0) arrival.phase = Phase::kHit;
  arrivals_.CountSlab(slab.info->layer);
}

Buffer FetchSink::Stream::BufferOf(uint64_t size) {
  while (!spare_.empty()) {
    Buffer buffer = std::move(spare_.back());
    spare_.pop_back();
    if (buffer.size() >= size) return buffer;
  }
  return Buffer(size);
}

Buffer FetchSink::Stream::TakeRoom(ByteSpan part, bool* in_room) {
  if (rooms_.empty()) return {};
  const ByteSpan room = rooms_.front().buffer.span().first(rooms_.front().size);
  const std::less_equal<> before;
  const uint8_t* const end = room.data() + room.size();
  *in_room = before(room.data(), part.data()) && before(part.data() + part.size(), end);
  if (!*in_room || part.data() + part.size() != end) return {};
  Buffer taken = std::move(rooms_.front().buffer);
  rooms_.pop_front();
  return taken;
}

void FetchSink::Stream::Fail(size_t chunk, MissReason reason, std::string detail) {
  if (arrivals_.Fail(chunk, reason, std::move(detail)) && open_.open && open_.chunk == chunk) open_.open = false;
}

}  // namespace kdn
