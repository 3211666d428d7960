#include "integration/system/storage_crash_load.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <sstream>
#include <utility>

#include "storage/base/split_mix.h"
#include "storage/base/status.h"
#include "storage/format/codec.h"

namespace kdn {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr size_t kMaxText = 1024;
// What a lossy codec may be off by. Values lie in [0.5, 2); q8's steps there are about 0.03.
constexpr float kTolerance = 0.1F;

uint64_t Mix(uint64_t x) { return SplitMix64(x); }

float Bf16(const uint8_t* bytes) {
  uint16_t bits = 0;
  std::memcpy(&bits, bytes, sizeof bits);
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

// Layers of 4 KV heads × 32 dims in bf16, K and V kept: 2 KiB a token.
KvSpace MakeSpace(uint32_t chunk_tokens) {
  KvSpace space;
  space.model_id = "kdn/storage-crash-test";
  space.weights_revision = "1";
  space.dtype = DType::kBf16;
  space.layers = {{.count = 4,
                   .kv_heads = 4,
                   .k_dim = 32,
                   .v_dim = 32,
                   .rope = {.kind = RopeKind::kHalfSplit, .rotary_dim = 32, .theta = 10000}}};
  space.chunk_tokens = chunk_tokens;
  return space;
}

}  // namespace

TieredStoreOptions CrashStoreOptions(const std::string& directory, Room room, const std::string& cold_codec) {
  constexpr uint64_t kAll = uint64_t{1} << 30;
  TieredStoreOptions options;
  options.memory_bytes = 6 * kMiB;
  options.disks = {{.path = directory + "/warm"}, {.path = directory + "/cold", .codec = cold_codec}};
  options.disks[0].bytes = room == Room::kAmple ? kAll : room == Room::kTight ? 6 * kMiB : 2 * kMiB;
  options.disks[1].bytes = room == Room::kTight ? 12 * kMiB : kAll;
  options.write_back_bytes = 4 * kMiB;
  return options;
}

CrashChunks::CrashChunks(uint64_t seed) : seed_(seed) {
  for (const uint32_t chunk_tokens : {16U, 128U, 1536U}) {
    const KvSpace space = MakeSpace(chunk_tokens);
    spaces_.push_back({space, ComputeSpaceId(space).value()});
  }
  for (int i = 0; i < 24; ++i) AddChain(0, 16, 4);
  for (uint32_t i = 0; i < 24; ++i) AddChain(0, 2 + i % 14, 1);
  small_chunks_ = plans_.size();
  small_chains_ = chains_.size();
  for (int i = 0; i < 8; ++i) AddChain(1, 128, 3);
  for (uint32_t i = 0; i < 24; ++i) AddChain(1, 32 + i * 4, 1);
  for (uint32_t i = 0; i < 8; ++i) AddChain(2, 512 + i * 146, 1);
  for (size_t i = 0; i < plans_.size(); ++i) made_.emplace_back();
}

void CrashChunks::AddChain(size_t space, uint32_t tokens, size_t length) {
  const uint64_t number = chains_.size();
  chains_.push_back({plans_.size(), length});
  ChunkKey parent;
  for (size_t i = 0; i < length; ++i) {
    std::vector<Token> text(tokens);
    for (size_t t = 0; t < tokens; ++t) text[t] = static_cast<Token>(Mix(seed_ ^ Mix(number << 32 | i << 16 | t)));
    Plan plan;
    plan.space = space;
    plan.key = ComputeChunkKey(spaces_[space].id, parent, text);
    plan.parent = parent;
    plan.first_token = static_cast<uint32_t>(i) * tokens;
    plan.tokens = tokens;
    plan.codec = number % 3 == 0 ? CodecId::kZstd : CodecId::kRaw;
    plan.lossy_allowed = number % 2 == 0;
    parent = plan.key;
    plans_.push_back(plan);
  }
}

size_t CrashChunks::Find(const ChunkKey& key) const {
  size_t chunk = 0;
  while (chunk < plans_.size() && plans_[chunk].key != key) ++chunk;
  return chunk;
}

Buffer CrashChunks::RawSlab(size_t chunk, Fidelity fidelity, size_t slab, const SlabShape& shape) const {
  Buffer raw(shape.RawSize());
  const uint64_t stream =
      Mix(seed_ ^ Mix(uint64_t{chunk} << 32 | uint64_t{slab} << 8 | static_cast<uint8_t>(fidelity)));
  for (size_t i = 0; i < raw.size(); i += sizeof(uint64_t)) {
    // Four bf16 numbers of either sign in [0.5, 2).
    const uint64_t word = (Mix(stream + i) & 0x80ff80ff80ff80ff) | 0x3f003f003f003f00;
    std::memcpy(raw.data() + i, &word, sizeof word);
  }
  return raw;
}

Chunk CrashChunks::Build(size_t chunk, Fidelity fidelity) const {
  const Plan& plan = plans_[chunk];
  const Codec* const codec = FindCodec(plan.codec).value();
  Manifest manifest;
  manifest.space = spaces_[plan.space].id;
  manifest.key = plan.key;
  manifest.parent = plan.parent;
  manifest.first_token = plan.first_token;
  manifest.tokens = plan.tokens;
  manifest.fidelity = fidelity;
  manifest.slabs = SlabsOf(spaces_[plan.space].space, plan.tokens);
  Chunk built;
  for (size_t i = 0; i < manifest.slabs.size(); ++i) {
    SlabInfo& slab = manifest.slabs[i];
    const Buffer raw = RawSlab(chunk, fidelity, i, slab.shape);
    SharedBuffer encoded = codec->Encode(slab.shape, slab.kind, {raw.data(), raw.size()}).value().Freeze();
    slab.codec = plan.codec;
    slab.encoded_size = encoded.size();
    slab.checksum = SlabChecksum(encoded);
    built.slabs.push_back(std::move(encoded));
  }
  built.manifest = std::make_shared<const Manifest>(std::move(manifest));
  built.retention.lossy_allowed = plan.lossy_allowed;
  return built;
}

const Chunk& CrashChunks::Make(size_t chunk, Fidelity fidelity) const {
  Made& made = made_[chunk];
  const size_t variant = fidelity == Fidelity::kExact ? 0 : 1;
  std::call_once(made.once[variant], [&] { made.chunk[variant] = Build(chunk, fidelity); });
  return made.chunk[variant];
}

absl::Status CrashChunks::CheckManifest(size_t chunk, Fidelity least, const Manifest& manifest) const {
  const Plan& plan = plans_[chunk];
  const std::string context = fmt::format("chunk number {} ({})", chunk, plan.key.ToShortHex());
  KDN_RETURN_IF_ERROR(Annotate(ValidateManifest(manifest), context));
  KDN_RETURN_IF_ERROR(Annotate(CheckGeometry(manifest, spaces_[plan.space].id, spaces_[plan.space].space), context));
  if (manifest.key != plan.key || manifest.parent != plan.parent || manifest.first_token != plan.first_token ||
      manifest.tokens != plan.tokens) {
    return DataLoss("{}: the manifest is that of chunk {}", context, manifest.key.ToShortHex());
  }
  if (manifest.fidelity < least) {
    return DataLoss("{}: fidelity {} was served where {} was asked for", context, static_cast<int>(manifest.fidelity),
                    static_cast<int>(least));
  }
  bool lossy = manifest.fidelity == Fidelity::kQuantised;
  for (const SlabInfo& slab : manifest.slabs) {
    KDN_ASSIGN_OR_RETURN(const Codec* const codec, FindCodec(slab.codec));
    lossy = lossy || codec->fidelity() != Fidelity::kExact;
  }
  if (lossy && !plan.lossy_allowed) return DataLoss("{}: held by a lossy codec, which nobody has allowed", context);
  return absl::OkStatus();
}

absl::Status CrashChunks::Check(size_t chunk, Fidelity least, LayerRange layers, const FetchedChunk& fetched) const {
  const Manifest& manifest = *fetched.manifest;
  KDN_RETURN_IF_ERROR(CheckManifest(chunk, least, manifest));
  const std::string context = fmt::format("chunk number {} ({})", chunk, manifest.key.ToShortHex());
  const Fidelity variant = manifest.fidelity == Fidelity::kApproximate ? Fidelity::kApproximate : Fidelity::kExact;
  const Chunk& expected = Make(chunk, variant);

  size_t next = 0;
  for (uint32_t i = 0; i < manifest.slabs.size(); ++i) {
    const SlabInfo& slab = manifest.slabs[i];
    if (!layers.Contains(slab.layer)) continue;
    if (next == fetched.slabs.size() || fetched.slabs[next].index != i) {
      return DataLoss("{}: slab {} was not delivered", context, i);
    }
    const SharedBuffer& bytes = fetched.slabs[next++].bytes;
    KDN_RETURN_IF_ERROR(Annotate(VerifySlab(manifest, i, bytes), context));
    if (slab == expected.manifest->slabs[i]) {
      if (AsStringView(bytes) != AsStringView(expected.slabs[i])) {
        return DataLoss("{}: slab {} has other bytes than were stored", context, i);
      }
      continue;
    }
    // Another codec than it was stored by: what counts is what it decodes to.
    KDN_ASSIGN_OR_RETURN(const Codec* const codec, FindCodec(slab.codec));
    const Buffer raw = RawSlab(chunk, variant, i, slab.shape);
    Buffer decoded(slab.shape.RawSize());
    KDN_RETURN_IF_ERROR(Annotate(codec->Decode(slab.shape, slab.kind, bytes, decoded.span()), context));
    if (codec->fidelity() == Fidelity::kExact) {
      if (std::memcmp(raw.data(), decoded.data(), raw.size()) != 0) {
        return DataLoss("{}: slab {} decodes to other bytes than were stored", context, i);
      }
      continue;
    }
    for (size_t at = 0; at < raw.size(); at += 2) {
      const float error = std::abs(Bf16(raw.data() + at) - Bf16(decoded.data() + at));
      if (!(error <= kTolerance)) {
        return DataLoss("{}: slab {} is off by {} at byte {}; it is not what was stored", context, i, error, at);
      }
    }
  }
  if (next != fetched.slabs.size()) return DataLoss("{}: slabs were delivered that were not asked for", context);
  return absl::OkStatus();
}

std::string FormatLogLine(const LogLine& line) {
  std::string text = line.text.substr(0, kMaxText);
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return fmt::format("{} {} {} {} {} {} {} {}\n", static_cast<char>(line.kind), line.id,
                     static_cast<char>(line.operation), line.chunk, static_cast<int>(line.fidelity),
                     static_cast<int>(line.ack), static_cast<int>(line.code), text);
}

absl::StatusOr<LogLine> ParseLogLine(const std::string& text) {
  std::istringstream in(text);
  char kind = 0;
  char operation = 0;
  int fidelity = 0;
  int ack = 0;
  int code = 0;
  LogLine line;
  if (!(in >> kind >> line.id >> operation >> line.chunk >> fidelity >> ack >> code)) {
    return InvalidArgument("'{}' is no line of the worker's log", text);
  }
  in.get();
  std::getline(in, line.text);
  line.kind = static_cast<LogLine::Kind>(kind);
  line.operation = static_cast<LogLine::Operation>(operation);
  line.fidelity = static_cast<Fidelity>(fidelity);
  line.ack = static_cast<Ack>(ack);
  line.code = static_cast<absl::StatusCode>(code);
  return line;
}

}  // namespace kdn
