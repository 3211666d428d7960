// Codec 4 (cachegen), lossy: entropy-coded quantisation after CacheGen (arXiv 2310.07240); docs/formats.md, "Codec 4".
//
// Each token has a step of its own, and a channel's values are kept as their distance from the channel's mean in steps,
// entropy coded with a static distribution for channels of that layer that spread alike. Early layers get finer steps
// than late ones, and keys finer than values. The paper also codes tokens as differences to one in ten, the anchor;
// that makes payloads and errors larger here (bench codec), because a channel's mean already takes out what tokens have
// in common, and a difference of two tokens spreads wider than either.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "storage/base/status.h"
#include "storage/format/channel_rows.h"
#include "storage/format/codecs.h"
#include "storage/format/lossy_payload.h"
#include "storage/format/quantise.h"
#include "storage/format/rans.h"

namespace kdn {
namespace {

constexpr int kStepCodes = 255;    // steps are kept as their distance below the slab's largest, in codes
constexpr int kOffsetOctaves = 2;  // channels' means are kept in quarters of the largest step
constexpr int kOffsetCodes = kOffsetOctaves * 8;
constexpr float kMaxOffset = 32767;

// Steps that a token's mean deviation is divided into. Errors of early layers pass through all that follow, and an
// error of a key changes the weights of all values.
float Resolution(SlabKind kind, const EncodeHints& hints) {
  const float depth = static_cast<float>(hints.layer) / static_cast<float>(std::max(1U, hints.layer_count));
  const float middle = kind == SlabKind::kV ? 2.75F : 3.0F;
  return depth < 1 / 3.0F ? 1.35F * middle : depth < 2 / 3.0F ? middle : 0.9F * middle;
}

class Encoder {
 public:
  Encoder(const SlabShape& shape, SlabKind kind, size_t first_row, const EncodeHints& hints, ByteSpan raw)
      : grid_(SlabGrid::Of(shape)),
        first_row_(first_row),
        rows_(grid_.rows - first_row),
        dtype_(shape.dtype),
        limit_(QuantisableLimit(shape.dtype)),
        resolution_(Resolution(kind, hints)),
        raw_(raw),
        row_(grid_.padded_columns),
        means_(grid_.padded_columns),
        steps_(rows_),
        offsets_(grid_.padded_columns),
        symbols_(rows_ * grid_.padded_columns) {}

  void Write(ByteWriter& out) && {
    FindMeans();
    ChooseSteps();
    Quantise();
    out.U16(static_cast<uint16_t>(coarsest_));
    WriteTable8(steps_, 1, out);
    WriteTable16(offsets_, 1, out);
    const RansModel model = Model();
    WriteModel(model, out);
    RansEncode(model, symbols_.data(), rows_, out);
    std::move(exact_).Write(grid_.word, raw_, out);
  }

 private:
  const uint8_t* RowWords(size_t r) const { return raw_.data() + (first_row_ + r) * grid_.row_bytes(); }
  const float* LoadRow(size_t r) {
    kdn::LoadRow(dtype_, RowWords(r), grid_.columns, row_.data());
    return row_.data();
  }
  // Keeps sums of `n` values within the range of floats, exactly.
  static float SumWeight(size_t n) { return 1 / static_cast<float>(std::bit_ceil(std::max<size_t>(n, 1))); }

  void FindMeans() {
    const float weight = SumWeight(rows_);
    std::vector<float> counts(grid_.padded_columns);
    for (size_t r = 0; r < rows_; ++r) {
      AddToChannels(LoadRow(r), grid_.padded_columns, limit_, weight, means_.data(), counts.data());
    }
    for (size_t c = 0; c < grid_.padded_columns; ++c) means_[c] /= weight * std::max(1.0F, counts[c]);
  }

  void ChooseSteps() {
    const float weight = SumWeight(grid_.columns);
    std::vector<float> wanted(rows_);
    for (size_t r = 0; r < rows_; ++r) {
      const float sum = SumDeviations(LoadRow(r), means_.data(), grid_.padded_columns, limit_, weight);
      wanted[r] = sum / (weight * static_cast<float>(grid_.columns) * resolution_);
    }
    const float largest = wanted.empty() ? 0 : *std::max_element(wanted.begin(), wanted.end());
    coarsest_ = std::max(StepCodeAtLeast(largest), kMinStepCode + kStepCodes);
    for (size_t r = 0; r < rows_; ++r) {
      const int code = std::max(StepCodeAtLeast(wanted[r]), coarsest_ - kStepCodes);
      steps_[r] = static_cast<uint8_t>(coarsest_ - code);
    }
    // From here on, means are what the decoder will know.
    const float unit = StepFromCode(coarsest_ - kOffsetCodes);
    for (size_t c = 0; c < grid_.padded_columns; ++c) {
      offsets_[c] = static_cast<int16_t>(RoundToInt(std::clamp(means_[c] / unit, -kMaxOffset, kMaxOffset)));
      means_[c] = static_cast<float>(offsets_[c]) * unit;
    }
  }

  void Quantise() {
    for (size_t r = 0; r < rows_; ++r) {
      const float* const row = LoadRow(r);
      const float step = StepFromCode(coarsest_ - steps_[r]);
      const float shift = RowShift(first_row_ + r) * step;
      const float inverse = 1 / step;
      uint8_t* const symbols = symbols_.data() + r * grid_.padded_columns;
      if (RowToSymbols(row, means_.data(), grid_.padded_columns, limit_, shift, inverse, symbols)) continue;
      for (size_t c = 0; c < grid_.columns; ++c) {
        const bool taken = std::abs(row[c]) < limit_ && std::abs((row[c] - means_[c] - shift) * inverse) < kSymbolReach;
        if (!taken) exact_.Add((first_row_ + r) * grid_.columns + c);
      }
    }
  }

  // Columns whose symbols' variance lies in the same half octave share a distribution.
  RansModel Model() const {
    std::vector<uint32_t> squares(grid_.padded_columns);
    for (size_t r = 0; r < rows_; ++r)
      AddSquares(symbols_.data() + r * grid_.padded_columns, squares.size(), squares.data());
    RansModel model;
    model.distribution_of_column.resize(grid_.padded_columns);
    std::vector<uint32_t> spreads;
    for (size_t c = 0; c < grid_.padded_columns; ++c) {
      const float variance = static_cast<float>(squares[c]) / static_cast<float>(std::max<size_t>(1, rows_));
      const uint32_t spread = std::bit_cast<uint32_t>(variance) >> 22;
      const auto known = std::find(spreads.begin(), spreads.end(), spread);
      model.distribution_of_column[c] = static_cast<uint8_t>(known - spreads.begin());
      if (known == spreads.end()) spreads.push_back(spread);
    }
    std::vector<std::array<uint32_t, 256>> counts(spreads.size());
    for (size_t r = 0; r < rows_; ++r) {
      const uint8_t* const symbols = symbols_.data() + r * grid_.padded_columns;
      for (size_t c = 0; c < grid_.padded_columns; ++c) ++counts[model.distribution_of_column[c]][symbols[c]];
    }
    for (const auto& count : counts) model.distributions.push_back(NormaliseFrequencies(count));
    return model;
  }

  static void WriteModel(const RansModel& model, ByteWriter& out) {
    out.U8(static_cast<uint8_t>(model.distributions.size()));
    WriteTable8(model.distribution_of_column, 1, out);
    std::vector<int16_t> all;
    for (const RansFrequencies& frequencies : model.distributions) {
      const auto occurs = [](uint16_t f) { return f != 0; };
      const auto first = std::find_if(frequencies.begin(), frequencies.end(), occurs);
      const auto last = std::find_if(frequencies.rbegin(), frequencies.rend(), occurs).base();
      out.U8(static_cast<uint8_t>(first - frequencies.begin()));
      out.U8(static_cast<uint8_t>(last - first - 1));
      all.insert(all.end(), first, last);
    }
    WriteTable16(all, 1, out);
  }

  SlabGrid grid_;
  size_t first_row_;
  size_t rows_;
  DType dtype_;
  float limit_;
  float resolution_;
  ByteSpan raw_;
  std::vector<float> row_;  // the one being looked at
  std::vector<float> means_;
  int coarsest_ = 0;
  std::vector<uint8_t> steps_;
  std::vector<int16_t> offsets_;
  Buffer symbols_;
  ExactValues exact_;
};

absl::StatusOr<RansModel> ReadModel(size_t columns, ByteReader& in) {
  const size_t distributions = in.U8();
  RansModel model;
  model.distribution_of_column.resize(columns);
  KDN_RETURN_IF_ERROR(ReadTable8(1, in, model.distribution_of_column));
  for (const uint8_t d : model.distribution_of_column) {
    if (d >= distributions) return DataLoss("distribution {} of {}", d, distributions);
  }
  struct Range {
    size_t first, count;
  };
  std::vector<Range> ranges(distributions);
  size_t total = 0;
  for (Range& range : ranges) {
    range = {in.U8(), in.U8() + size_t{1}};
    if (!in.ok() || range.first + range.count > 256) return DataLoss("a distribution's range is malformed");
    total += range.count;
  }
  std::vector<int16_t> all(total);
  KDN_RETURN_IF_ERROR(ReadTable16(1, in, all));
  auto next = all.begin();
  for (const Range& range : ranges) {
    RansFrequencies frequencies{};
    uint32_t sum = 0;
    for (size_t i = 0; i < range.count; ++i, ++next) {
      if (*next < 0 || *next > static_cast<int>(kRansScale)) return DataLoss("a frequency is {}", *next);
      frequencies[range.first + i] = static_cast<uint16_t>(*next);
      sum += static_cast<uint32_t>(*next);
    }
    if (sum != kRansScale) return DataLoss("frequencies add up to {}", sum);
    model.distributions.push_back(frequencies);
  }
  return model;
}

absl::Status ReadBody(const SlabShape& shape, size_t first_row, ByteReader& in, MutableByteSpan raw) {
  const SlabGrid grid = SlabGrid::Of(shape);
  const size_t rows = grid.rows - first_row;
  const int coarsest = in.U16();
  if (!in.ok() || coarsest < kStepCodes || coarsest >= kStepCodeEnd) {
    return DataLoss("the coarsest step has code {}", coarsest);
  }
  std::vector<uint8_t> steps(rows);
  KDN_RETURN_IF_ERROR(ReadTable8(1, in, steps));
  std::vector<int16_t> means(grid.padded_columns);
  KDN_RETURN_IF_ERROR(ReadTable16(1, in, means));
  KDN_ASSIGN_OR_RETURN(const RansModel model, ReadModel(grid.padded_columns, in));
  Buffer symbols(rows * grid.padded_columns);
  KDN_RETURN_IF_ERROR(RansDecode(model, rows, in, symbols.data()));

  std::vector<float> offsets(grid.padded_columns);
  for (size_t c = 0; c < offsets.size(); ++c) {
    offsets[c] = StepFromCode(coarsest - kOffsetCodes) * static_cast<float>(means[c]);
  }
  Buffer padded_row(grid.padded_columns * grid.word);
  for (size_t r = 0; r < rows; ++r) {
    const float step = StepFromCode(coarsest - steps[r]);
    const bool whole = grid.columns == grid.padded_columns;
    uint8_t* const words = raw.data() + (first_row + r) * grid.row_bytes();
    DequantiseRow(shape.dtype, symbols.data() + r * grid.padded_columns, grid.padded_columns,
                  kCentreSymbol - RowShift(first_row + r), Spread::kRowStepColumnOffset, &step, offsets.data(),
                  whole ? words : padded_row.data());
    if (!whole) std::memcpy(words, padded_row.data(), grid.row_bytes());
  }
  return ExactValues::Restore(grid.word, in, raw);
}

class CacheGen final : public Codec {
 public:
  CodecId id() const override { return CodecId::kCacheGen; }
  std::string_view name() const override { return "cachegen"; }
  Fidelity fidelity() const override { return Fidelity::kQuantised; }

  absl::StatusOr<Buffer> Encode(const SlabShape& shape, SlabKind kind, ByteSpan raw,
                                const EncodeHints& hints) const override {
    KDN_RETURN_IF_ERROR(CheckRawSize(shape, raw.size()));
    KDN_RETURN_IF_ERROR(CheckQuantisable(name(), shape));
    const uint8_t exact_rows = hints.first_token == 0 ? 1 : 0;
    ByteWriter out;
    WriteHead({.layout = LossyLayout::kCoded, .exact_rows = exact_rows}, out);
    out.Bytes(raw.first(exact_rows * SlabGrid::Of(shape).row_bytes()));
    Encoder(shape, kind, exact_rows, hints, raw).Write(out);
    return FinishPayload(out, raw);
  }

  absl::Status Decode(const SlabShape& shape, SlabKind, ByteSpan encoded, MutableByteSpan raw) const override {
    KDN_RETURN_IF_ERROR(CheckRawSize(shape, raw.size()));
    KDN_RETURN_IF_ERROR(CheckQuantisable(name(), shape));
    return AnnotateLossy(name(), DecodeChecked(shape, encoded, raw));
  }

 private:
  static absl::Status DecodeChecked(const SlabShape& shape, ByteSpan encoded, MutableByteSpan raw) {
    const SlabGrid grid = SlabGrid::Of(shape);
    ByteReader in(encoded);
    KDN_ASSIGN_OR_RETURN(const LossyHead head, ReadHead(grid, in));
    if (head.layout == LossyLayout::kStored) return ReadStored(in, raw);
    KDN_RETURN_IF_ERROR(ReadExactRows(head.exact_rows * grid.row_bytes(), in, raw));
    KDN_RETURN_IF_ERROR(ReadBody(shape, head.exact_rows, in, raw));
    if (in.remaining() != 0) return DataLoss("{} bytes too many", in.remaining());
    return absl::OkStatus();
  }
};

}  // namespace

const Codec& CacheGenCodec() {
  static const CacheGen codec;
  return codec;
}

}  // namespace kdn
