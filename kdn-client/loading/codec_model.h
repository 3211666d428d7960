// CodecModel: what it costs to have chunks sent by one codec or another, learned from fetches.
//
//   double seconds = codecs.SecondsPerByte(CodecWish::kZstd, /*wire_bytes_per_second=*/1.25e6);
//
// Three work side by side on a chunk: the node recodes it, the wire carries what comes out of that, the receiver
// decodes it. The slowest of them decides how long a fetch takes. Until fetches have told, and again when they have not
// for a while, constants measured by `./dev bench codec` stand in (codec_model.cc).
//
// Thread-safety: none; its owner guards it.
#ifndef KDN_KDN_CLIENT_LOADING_CODEC_MODEL_H_
#define KDN_KDN_CLIENT_LOADING_CODEC_MODEL_H_

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/time/time.h"
#include "storage/format/manifest.h"

namespace kdn {

// By which codec a fetch wishes its chunks to come, in the order of what they lose.
enum class CodecWish : uint8_t { kStored, kRaw, kZstd, kQ8, kCacheGen, kQ4 };
inline constexpr size_t kCodecWishCount = 6;

std::span<const CodecWish> ExactWishes();
std::span<const CodecWish> LossyWishes();
// As FetchOptions::codec has it; empty for kStored.
std::string_view CodecNameOf(CodecWish wish);
Fidelity FidelityOf(CodecWish wish);

class CodecModel {
 public:
  // A fetch of `raw_bytes`, as an engine has them, came as `encoded_bytes` and cost the receiver `work`.
  void Observe(CodecWish wish, uint64_t raw_bytes, uint64_t encoded_bytes, absl::Duration work);
  // The node took this long at least to recode; what came of it is not known.
  void ObserveRecoding(CodecWish wish, uint64_t raw_bytes, absl::Duration elapsed);
  // A request begins: what was learned counts for a little less beside the constants, so that a codec that once did not
  // help, as chunks were stored then, is tried again some day.
  void Fade();

  // Whether a fetch has ever shown what the codec does.
  bool Knows(CodecWish wish) const { return learned_[static_cast<size_t>(wish)].ratio.bytes > 0; }

  // Encoded bytes for each raw one.
  double Ratio(CodecWish wish) const;
  // Seconds for each raw byte: of the receiver and of the node.
  double ReceiveSeconds(CodecWish wish) const;
  double RecodeSeconds(CodecWish wish) const;
  // Of all three.
  double SecondsPerByte(CodecWish wish, double wire_bytes_per_second) const;

  // Whether recoding, though many times slower than measured, may have been what took a fetch as long as `moving`.
  static bool RecodingMayHaveTaken(CodecWish wish, uint64_t raw_bytes, absl::Duration moving);

 private:
  // A mean over raw bytes, beside a constant that has some weight of its own.
  struct Mean {
    double sum = 0;
    double bytes = 0;

    void Add(double value, double by_bytes);
    double Beside(double constant, double constant_bytes) const;
  };
  struct Learned {
    Mean ratio;
    Mean receive;
    Mean recode;
  };

  std::array<Learned, kCodecWishCount> learned_;
};

}  // namespace kdn

#endif  // KDN_KDN_CLIENT_LOADING_CODEC_MODEL_H_
