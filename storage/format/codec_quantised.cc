// Codecs 2 (q8) and 3 (q4), lossy (docs/formats.md, "Codecs 2 and 3: q8 and q4").
//
// Asymmetric quantisation in groups of 32 values: a key group is a channel over 32 tokens, since keys have channels of
// large values; a value group is 32 channels of a token (KIVI, arXiv 2402.02750). The first token of a segment and
// single values that would coarsen their group are kept exactly (KVQuant, arXiv 2401.18079).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "storage/base/status.h"
#include "storage/format/codecs.h"
#include "storage/format/lossy_payload.h"
#include "storage/format/quantise.h"

namespace kdn {
namespace {

// Steps are kept as their distance below the slab's largest, in codes: 32 octaves reach further than matters.
constexpr int kStepCodes = 255;

// Where the groups of a slab's body (the rows that are not exact) lie.
struct Groups {
  SlabGrid grid;
  GroupAxis axis;
  size_t first_row;  // of the body

  Groups(const SlabShape& shape, SlabKind kind, size_t exact_rows)
      : grid(SlabGrid::Of(shape)),
        // A latent mixes what keys and values are made of; an error of the keys' part weighs more.
        axis(kind == SlabKind::kV ? GroupAxis::kRow : GroupAxis::kColumn),
        first_row(exact_rows) {}

  size_t rows() const { return grid.rows - first_row; }
  size_t bands() const { return (rows() + kTile - 1) / kTile; }  // rows of tiles
  size_t band_rows(size_t band) const { return std::min(kTile, rows() - band * kTile); }
  // Groups are a table: a band's channels beside each other, or a token's runs.
  size_t table_row() const { return axis == GroupAxis::kColumn ? grid.padded_columns : grid.runs(); }
  size_t count() const { return table_row() * (axis == GroupAxis::kColumn ? bands() : rows()); }
  // The group of row or column `i` of a tile.
  size_t At(size_t band, size_t run, size_t i) const {
    return axis == GroupAxis::kColumn ? band * table_row() + run * kTile + i : (band * kTile + i) * table_row() + run;
  }
  // A token's groups are shifted together. Channels' groups span tokens, and rotated keys do not repeat: no shift.
  float ShiftOf(size_t row) const { return axis == GroupAxis::kColumn ? 0 : RowShift(first_row + row); }
  // Codes are packed band by band, each band filled up to whole blocks.
  size_t band_codes(size_t band) const {
    return (band_rows(band) * grid.padded_columns + kCodesPerBlock - 1) / kCodesPerBlock * kCodesPerBlock;
  }
  size_t codes() const { return bands() == 0 ? 0 : (bands() - 1) * band_codes(0) + band_codes(bands() - 1); }
};

// A finer lattice than this many steps up to a group's largest value tells apart what the type itself does not.
float FinestIndex(DType dtype) {
  if (dtype == DType::kBf16) return 0x1p10F;
  return dtype == DType::kF16 ? 0x1p13F : kMaxLatticeIndex;
}

struct Lattice {
  float low = 0;
  float high = 0;
  float shift = 0;
  int step_code = 0;
  int zero = 0;
};

// Chooses groups' lattices.
class LatticeFitter {
 public:
  LatticeFitter(DType dtype, int bits, float largest)
      : levels_(1 << bits), limit_(QuantisableLimit(dtype)), finest_(FinestIndex(dtype)) {
    // Any group fits the coarsest step: its range is at most twice the largest magnitude.
    const int fits_all = StepCodeAtLeast(largest * (2 / static_cast<float>(levels_ - 2)));
    coarsest_ = std::max(fits_all + 1, kMinStepCode + kStepCodes);
    // Keeping a value exactly costs its word and about ten bits of index. It pays when the finer step is worth more to
    // the rest of the group: log2(range before / after) bits for each of its values.
    exact_pays_ = std::exp2((8 * static_cast<float>(DTypeSize(dtype)) + 10) / kTile);
  }

  float limit() const { return limit_; }
  int coarsest() const { return coarsest_; }

  // `row_shift` is in steps.
  Lattice Fit(const ColumnExtremes& e, size_t i, float row_shift) const {
    if (e.max[i] < e.min[i]) return Fit(0.0F, 0.0F, row_shift);  // no value that can be quantised
    const float floor = static_cast<float>(levels_ - 1) * FinestStep(e.min[i], e.max[i]);
    float low = e.min[i], high = e.max[i];
    float cost = std::max(high - low, floor);
    const auto try_without = [&](float l, float h, float factor) {
      if (l > h) return;
      if (const float c = std::max(h - l, floor) * factor; c < cost) low = l, high = h, cost = c;
    };
    try_without(e.min[i], e.second_max[i], exact_pays_);
    try_without(e.second_min[i], e.max[i], exact_pays_);
    try_without(e.second_min[i], e.second_max[i], exact_pays_ * exact_pays_);
    return Fit(low, high, row_shift);
  }

 private:
  float FinestStep(float low, float high) const { return std::max(std::abs(low), std::abs(high)) / finest_; }

  Lattice Fit(float low, float high, float row_shift) const {
    const float least = std::max((high - low) / static_cast<float>(levels_), FinestStep(low, high));
    int code = std::max(StepCodeAtLeast(least), coarsest_ - kStepCodes);
    for (;; ++code) {
      const float shift = row_shift * StepFromCode(code);
      const float inverse = 1 / StepFromCode(code);
      const int first = RoundToInt((low - shift) * inverse);
      const int last = RoundToInt((high - shift) * inverse);
      if (last - first < levels_) return {low, high, shift, code, first};
    }
  }

  int levels_;
  float limit_;
  float finest_;
  int coarsest_ = 0;
  float exact_pays_ = 0;
};

// Quantises a slab's body, tile by tile.
class Encoder {
 public:
  Encoder(const SlabShape& shape, const Groups& groups, int bits, ByteSpan raw)
      : dtype_(shape.dtype),
        groups_(groups),
        bits_(bits),
        raw_(raw),
        fitter_(
            shape.dtype, bits,
            MaxMagnitude(shape.dtype, BodyRow(0), groups.rows() * groups.grid.columns, QuantisableLimit(shape.dtype))),
        steps_(groups.count()),
        zeros_(groups.count()),
        packed_(PackedSize(bits, groups.codes())) {}

  void Write(ByteWriter& out) && {
    Buffer codes(kTile * groups_.grid.padded_columns);
    size_t packed = 0;
    for (size_t band = 0; band < groups_.bands(); ++band) {
      for (size_t run = 0; run < groups_.grid.runs(); ++run) EncodeTile(band, run, codes.data() + run * kTile);
      const size_t count = groups_.band_codes(band);
      const size_t used = groups_.band_rows(band) * groups_.grid.padded_columns;
      std::memset(codes.data() + used, 0, count - used);
      PackCodes(bits_, codes.data(), count, packed_.data() + packed);
      packed += PackedSize(bits_, count);
    }
    out.U16(static_cast<uint16_t>(fitter_.coarsest()));
    WriteTable8(steps_, groups_.table_row(), out);
    WriteTable16(zeros_, groups_.table_row(), out);
    WriteSection(packed_.span(), out);
    std::move(exact_).Write(groups_.grid.word, raw_, out);
  }

 private:
  const uint8_t* BodyRow(size_t row) const {
    return raw_.data() + (groups_.first_row + row) * groups_.grid.row_bytes();
  }

  void EncodeTile(size_t band, size_t run, uint8_t* codes) {
    const size_t rows = groups_.band_rows(band);
    const size_t columns = std::min(kTile, groups_.grid.columns - run * kTile);
    const bool by_column = groups_.axis == GroupAxis::kColumn;
    LoadTile(dtype_, BodyRow(band * kTile) + run * kTile * groups_.grid.word, groups_.grid.row_bytes(), rows, columns,
             tile_);
    if (by_column) {
      FindColumnExtremes(tile_, rows, fitter_.limit(), extremes_);
    } else {
      TransposeTile(tile_, transposed_);
      FindColumnExtremes(transposed_, columns, fitter_.limit(), extremes_);
    }
    const size_t tile_groups = by_column ? kTile : rows;
    for (size_t i = 0; i < tile_groups; ++i) {
      const Lattice lattice = fitter_.Fit(extremes_, i, groups_.ShiftOf(band * kTile + i));
      lattices_.low[i] = lattice.low;
      lattices_.high[i] = lattice.high;
      lattices_.shift[i] = lattice.shift;
      lattices_.inverse_step[i] = 1 / StepFromCode(lattice.step_code);
      lattices_.zero[i] = static_cast<float>(lattice.zero);
      const size_t group = groups_.At(band, run, i);
      steps_[group] = static_cast<uint8_t>(fitter_.coarsest() - lattice.step_code);
      zeros_[group] = static_cast<int16_t>(lattice.zero);
    }
    const size_t stride = groups_.grid.padded_columns;
    const uint32_t others = QuantiseTile(tile_, rows, groups_.axis, lattices_, codes, stride);
    for (size_t r = 0; r < rows; ++r) {
      if ((others >> r & 1) == 0) continue;
      for (size_t c = 0; c < columns; ++c) {
        const size_t i = by_column ? c : r;
        const float x = tile_[r * kTile + c];
        if (x >= lattices_.low[i] && x <= lattices_.high[i]) continue;
        exact_.Add((groups_.first_row + band * kTile + r) * groups_.grid.columns + run * kTile + c);
      }
    }
  }

  DType dtype_;
  const Groups& groups_;
  int bits_;
  ByteSpan raw_;
  LatticeFitter fitter_;
  std::vector<uint8_t> steps_;  // codes below the coarsest
  std::vector<int16_t> zeros_;
  Buffer packed_;
  ExactValues exact_;
  alignas(64) float tile_[kTile * kTile];
  alignas(64) float transposed_[kTile * kTile];
  ColumnExtremes extremes_;
  LatticeTile lattices_;
};

// Reads what Encoder::Write wrote and fills the body of `raw`.
class Decoder {
 public:
  Decoder(const SlabShape& shape, const Groups& groups, int bits, MutableByteSpan raw)
      : dtype_(shape.dtype), groups_(groups), bits_(bits), raw_(raw), steps_(groups.count()), zeros_(groups.count()) {}

  absl::Status Read(ByteReader& in) && {
    const int coarsest = in.U16();
    if (!in.ok() || coarsest < kStepCodes || coarsest >= kStepCodeEnd) {
      return DataLoss("the coarsest step has code {}", coarsest);
    }
    KDN_RETURN_IF_ERROR(ReadTable8(groups_.table_row(), in, steps_));
    KDN_RETURN_IF_ERROR(ReadTable16(groups_.table_row(), in, zeros_));
    Buffer scratch;
    KDN_ASSIGN_OR_RETURN(const ByteSpan packed, ReadSection(PackedSize(bits_, groups_.codes()), in, scratch));
    DecodeBody(coarsest, packed.data());
    return ExactValues::Restore(groups_.grid.word, in, raw_);
  }

 private:
  void DecodeBody(int coarsest, const uint8_t* packed) {
    const SlabGrid& grid = groups_.grid;
    const bool by_column = groups_.axis == GroupAxis::kColumn;
    Buffer codes(kTile * grid.padded_columns);
    Buffer padded_row(grid.padded_columns * grid.word);
    std::vector<float> steps(groups_.table_row()), offsets(groups_.table_row());
    for (size_t band = 0; band < groups_.bands(); ++band) {
      const size_t count = groups_.band_codes(band);
      UnpackCodes(bits_, packed, count, codes.data());
      packed += PackedSize(bits_, count);
      for (size_t r = 0; r < groups_.band_rows(band); ++r) {
        if (!by_column || r == 0) {
          ReadLattices(coarsest, groups_.At(band, 0, by_column ? 0 : r), groups_.ShiftOf(band * kTile + r), steps,
                       offsets);
        }
        const size_t row = groups_.first_row + band * kTile + r;
        const bool whole = grid.columns == grid.padded_columns;
        uint8_t* const words = raw_.data() + row * grid.row_bytes();
        DequantiseRow(dtype_, codes.data() + r * grid.padded_columns, grid.padded_columns, 0,
                      by_column ? Spread::kPerColumn : Spread::kPerRun, steps.data(), offsets.data(),
                      whole ? words : padded_row.data());
        if (!whole) std::memcpy(words, padded_row.data(), grid.row_bytes());
      }
    }
  }

  // The lattices of a row of the table, from `group` on.
  void ReadLattices(int coarsest, size_t group, float shift, std::vector<float>& steps,
                    std::vector<float>& offsets) const {
    for (size_t i = 0; i < steps.size(); ++i) {
      steps[i] = StepFromCode(coarsest - steps_[group + i]);
      offsets[i] = steps[i] * (static_cast<float>(zeros_[group + i]) + shift);
    }
  }

  DType dtype_;
  const Groups& groups_;
  int bits_;
  MutableByteSpan raw_;
  std::vector<uint8_t> steps_;
  std::vector<int16_t> zeros_;
};

class Quantised final : public Codec {
 public:
  Quantised(CodecId id, std::string_view name, int bits) : id_(id), name_(name), bits_(bits) {}

  CodecId id() const override { return id_; }
  std::string_view name() const override { return name_; }
  Fidelity fidelity() const override { return Fidelity::kQuantised; }

  absl::StatusOr<Buffer> Encode(const SlabShape& shape, SlabKind kind, ByteSpan raw,
                                const EncodeHints& hints) const override {
    KDN_RETURN_IF_ERROR(CheckRawSize(shape, raw.size()));
    KDN_RETURN_IF_ERROR(CheckQuantisable(name_, shape));
    const Groups groups(shape, kind, hints.first_token == 0 ? 1 : 0);
    ByteWriter out;
    WriteHead({.layout = LossyLayout::kCoded, .exact_rows = static_cast<uint8_t>(groups.first_row)}, out);
    out.Bytes(raw.first(groups.first_row * groups.grid.row_bytes()));
    Encoder(shape, groups, bits_, raw).Write(out);
    return FinishPayload(out, raw);
  }

  absl::Status Decode(const SlabShape& shape, SlabKind kind, ByteSpan encoded, MutableByteSpan raw) const override {
    KDN_RETURN_IF_ERROR(CheckRawSize(shape, raw.size()));
    KDN_RETURN_IF_ERROR(CheckQuantisable(name_, shape));
    return AnnotateLossy(name_, DecodeChecked(shape, kind, encoded, raw));
  }

 private:
  absl::Status DecodeChecked(const SlabShape& shape, SlabKind kind, ByteSpan encoded, MutableByteSpan raw) const {
    ByteReader in(encoded);
    KDN_ASSIGN_OR_RETURN(const LossyHead head, ReadHead(SlabGrid::Of(shape), in));
    if (head.layout == LossyLayout::kStored) return ReadStored(in, raw);
    const Groups groups(shape, kind, head.exact_rows);
    KDN_RETURN_IF_ERROR(ReadExactRows(groups.first_row * groups.grid.row_bytes(), in, raw));
    KDN_RETURN_IF_ERROR(Decoder(shape, groups, bits_, raw).Read(in));
    if (in.remaining() != 0) return DataLoss("{} bytes too many", in.remaining());
    return absl::OkStatus();
  }

  CodecId id_;
  std::string_view name_;
  int bits_;
};

}  // namespace

const Codec& Q8Codec() {
  // Seven bits a code: with what a group's step and zero take, that is about eight bits a value.
  static const Quantised codec(CodecId::kQ8, "q8", 7);
  return codec;
}

const Codec& Q4Codec() {
  static const Quantised codec(CodecId::kQ4, "q4", 4);
  return codec;
}

}  // namespace kdn
