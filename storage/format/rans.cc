#include "storage/format/rans.h"

#include <algorithm>
#include <cstring>

#include "storage/base/status.h"

// Highway compiles what follows once per instruction set, through foreach_target.h; HWY_DYNAMIC_DISPATCH picks at run
// time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "storage/format/rans.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

#ifndef KDN_STORAGE_FORMAT_RANS_STATE_
#define KDN_STORAGE_FORMAT_RANS_STATE_
namespace kdn {
namespace {

constexpr uint32_t kLowest = 1U << 16;  // of a state

// A slot's entry: its symbol in bits 0 to 7, the frequency in 8 to 18, the slot's distance from the first of the symbol
// in 19 to 28.
constexpr int kFrequencyShift = 8;
constexpr int kDistanceShift = 19;
constexpr uint32_t kFrequencyMask = 2 * kRansScale - 1;

struct DecodeJob {
  const uint32_t* slots;      // 1024 for each distribution
  const int32_t* first_slot;  // of each column's distribution
  const uint32_t* words;      // pairs of 16-bit words; one pair more than there are
  int32_t last_word;          // where a stream stays that runs out of words
  size_t rows;
  size_t columns;
  uint8_t* symbols;
  uint32_t state[kRansStreams];
  int32_t next_word[kRansStreams];
};

}  // namespace
}  // namespace kdn
#endif  // KDN_STORAGE_FORMAT_RANS_STATE_

HWY_BEFORE_NAMESPACE();
namespace kdn {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using U32 = hn::CappedTag<uint32_t, 16>;
using I32 = hn::RebindToSigned<U32>;
using U8 = hn::Rebind<uint8_t, U32>;

// A vector of streams.
struct Streams {
  hn::Vec<U32> state;
  hn::Vec<I32> next;

  static Streams Load(const DecodeJob& job, size_t stream) {
    return {hn::LoadU(U32(), job.state + stream), hn::LoadU(I32(), job.next_word + stream)};
  }
  void Save(DecodeJob& job, size_t stream) const {
    hn::StoreU(state, U32(), job.state + stream);
    hn::StoreU(next, I32(), job.next_word + stream);
  }

  HWY_INLINE void Step(const DecodeJob& job, size_t column, uint8_t* symbols) {
    const U32 d;
    const I32 di;
    const auto slot = hn::And(state, hn::Set(d, kRansScale - 1));
    const auto index = hn::Add(hn::LoadU(di, job.first_slot + column), hn::BitCast(di, slot));
    const auto entry = hn::GatherIndex(d, job.slots, index);
    hn::StoreU(hn::DemoteTo(U8(), hn::BitCast(di, hn::And(entry, hn::Set(d, 0xFF)))), U8(), symbols);
    const auto frequency = hn::And(hn::ShiftRight<kFrequencyShift>(entry), hn::Set(d, kFrequencyMask));
    const auto quotient = hn::ShiftRight<kRansScaleBits>(state);
    state = hn::Add(hn::Mul(frequency, quotient), hn::ShiftRight<kDistanceShift>(entry));
    // A state that has become small takes in a word.
    const auto pair = hn::GatherIndex(d, job.words, hn::ShiftRight<1>(next));
    const auto half = hn::ShiftLeft<4>(hn::And(hn::BitCast(d, next), hn::Set(d, 1)));
    const auto word = hn::And(hn::Shr(pair, half), hn::Set(d, 0xFFFF));
    const auto small = hn::Eq(hn::ShiftRight<16>(state), hn::Zero(d));
    state = hn::IfThenElse(small, hn::Or(hn::ShiftLeft<16>(state), word), state);
    const auto taken = hn::IfThenElseZero(hn::RebindMask(di, small), hn::Set(di, 1));
    next = hn::Min(hn::Add(next, taken), hn::Set(di, job.last_word));
  }
};

// Two vectors at a time: one waits for memory while the other computes.
void DecodeStreams(DecodeJob& job) {
  const size_t lanes = hn::Lanes(U32());
  for (size_t stream = 0; stream < kRansStreams; stream += 2 * lanes) {
    Streams a = Streams::Load(job, stream);
    Streams b = Streams::Load(job, stream + lanes);
    uint8_t* symbols = job.symbols;
    for (size_t row = 0; row < job.rows; ++row) {
      for (size_t column = stream; column < job.columns; column += kRansStreams) {
        a.Step(job, column, symbols + column);
        b.Step(job, column + lanes, symbols + column + lanes);
      }
      symbols += job.columns;
    }
    a.Save(job, stream);
    b.Save(job, stream + lanes);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kdn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kdn {

HWY_EXPORT(DecodeStreams);

RansFrequencies NormaliseFrequencies(const std::array<uint32_t, 256>& counts) {
  RansFrequencies frequencies{};
  uint64_t total = 0;
  for (const uint32_t n : counts) total += n;
  if (total == 0) {
    frequencies[0] = kRansScale;
    return frequencies;
  }
  uint32_t sum = 0;
  for (size_t s = 0; s < counts.size(); ++s) {
    if (counts[s] == 0) continue;
    frequencies[s] =
        static_cast<uint16_t>(std::max<uint64_t>(1, (counts[s] * uint64_t{kRansScale} + total / 2) / total));
    sum += frequencies[s];
  }
  // Rounding is made up for where a step costs the least: at the most frequent symbol.
  while (sum != kRansScale) {
    uint16_t& most = *std::max_element(frequencies.begin(), frequencies.end());
    if (sum < kRansScale) {
      most = static_cast<uint16_t>(most + (kRansScale - sum));
      sum = kRansScale;
    } else {
      const uint32_t excess = std::min<uint32_t>(sum - kRansScale, std::max<uint32_t>(1, most / 8U));
      most = static_cast<uint16_t>(most - excess);
      sum -= excess;
    }
  }
  return frequencies;
}

void RansEncode(const RansModel& model, const uint8_t* symbols, size_t rows, ByteWriter& out) {
  struct Symbol {
    uint32_t frequency, start;
  };
  std::vector<std::array<Symbol, 256>> tables(model.distributions.size());
  for (size_t i = 0; i < tables.size(); ++i) {
    uint32_t start = 0;
    for (size_t s = 0; s < 256; ++s) {
      tables[i][s] = {model.distributions[i][s], start};
      start += model.distributions[i][s];
    }
  }
  const size_t columns = model.columns();
  const size_t most_words = rows * (columns / kRansStreams) + 1;  // one that is only overwritten
  // Words come out last first.
  std::vector<uint16_t> words(kRansStreams * most_words);
  std::array<uint16_t*, kRansStreams> next;
  std::array<uint32_t, kRansStreams> state;
  state.fill(kLowest);
  for (size_t s = 0; s < kRansStreams; ++s) next[s] = words.data() + (s + 1) * most_words;
  for (size_t row = rows; row-- > 0;) {
    const uint8_t* const line = symbols + row * columns;
    for (size_t run = columns; run > 0; run -= kRansStreams) {
      for (size_t s = 0; s < kRansStreams; ++s) {
        const size_t column = run - kRansStreams + s;
        const Symbol symbol = tables[model.distribution_of_column[column]][line[column]];
        uint32_t x = state[s];
        // Without a branch, which could not be predicted: a word that is not given away is overwritten by the next.
        const bool full = x >> (32 - kRansScaleBits) >= symbol.frequency;
        next[s][-1] = static_cast<uint16_t>(x);
        next[s] -= full ? 1 : 0;
        x >>= full ? 16U : 0U;
        state[s] = (x / symbol.frequency << kRansScaleBits) + x % symbol.frequency + symbol.start;
      }
    }
  }
  for (size_t s = 0; s < kRansStreams; ++s) {
    out.U32(state[s]);
    out.U32(static_cast<uint32_t>(words.data() + (s + 1) * most_words - next[s]));
  }
  for (size_t s = 0; s < kRansStreams; ++s) {
    const uint16_t* const end = words.data() + (s + 1) * most_words;
    out.Bytes({reinterpret_cast<const uint8_t*>(next[s]), static_cast<size_t>(end - next[s]) * 2});
  }
}

absl::Status RansDecode(const RansModel& model, size_t rows, ByteReader& in, uint8_t* symbols) {
  DecodeJob job{};
  std::array<int32_t, kRansStreams> end;
  uint64_t words = 0;
  const uint64_t most_words = rows * (model.columns() / kRansStreams);
  for (size_t s = 0; s < kRansStreams; ++s) {
    job.state[s] = in.U32();
    const uint32_t stream_words = in.U32();
    if (!in.ok() || job.state[s] < kLowest || stream_words > most_words) {
      return DataLoss("stream {} is malformed", s);
    }
    job.next_word[s] = static_cast<int32_t>(words);
    words += stream_words;
    end[s] = static_cast<int32_t>(words);
  }
  const ByteSpan bytes = in.Bytes(words * 2);
  if (!in.ok()) return DataLoss("the streams are cut short");
  // Aligned, and one pair longer than needed: a stream that does not need a word looks at the next one all the same.
  std::vector<uint32_t> pairs(words / 2 + 1);
  std::memcpy(pairs.data(), bytes.data(), bytes.size());

  std::vector<uint32_t> slots(model.distributions.size() * kRansScale);
  for (size_t i = 0; i < model.distributions.size(); ++i) {
    uint32_t* slot = slots.data() + i * kRansScale;
    for (uint32_t s = 0; s < 256; ++s) {
      const uint32_t frequency = model.distributions[i][s];
      for (uint32_t distance = 0; distance < frequency; ++distance) {
        *slot++ = s | frequency << kFrequencyShift | distance << kDistanceShift;
      }
    }
  }
  std::vector<int32_t> first_slot(model.columns());
  for (size_t c = 0; c < model.columns(); ++c) {
    first_slot[c] = static_cast<int32_t>(model.distribution_of_column[c] * kRansScale);
  }
  job.slots = slots.data();
  job.first_slot = first_slot.data();
  job.words = pairs.data();
  job.last_word = static_cast<int32_t>(words);
  job.rows = rows;
  job.columns = model.columns();
  job.symbols = symbols;
  HWY_DYNAMIC_DISPATCH(DecodeStreams)(job);
  for (size_t s = 0; s < kRansStreams; ++s) {
    if (job.state[s] != kLowest || job.next_word[s] != end[s]) return DataLoss("stream {} does not add up", s);
  }
  return absl::OkStatus();
}

}  // namespace kdn
#endif  // HWY_ONCE
