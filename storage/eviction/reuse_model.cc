#include "storage/eviction/reuse_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "storage/eviction/memory.h"

namespace kdn {
namespace {

constexpr int kFirstOctave = 6;  // bin 0 holds all ages below 2^6: no cache turns over so fast

// Evidence that a class takes over from the one above it, in hits. Enough to smooth, soon outweighed.
constexpr float kPriorHits = 4;
// The root's prior: of the chunks that reach some age, this part is asked for again before they are twice as old. The
// smaller, the sooner a class is known to be worthless; the order between ages, which is LRU's, is the same for all.
constexpr float kPriorReuse = 0.03F;

// The least age of a bin.
uint64_t BinStart(int bin) {
  if (bin == 0) return 0;
  const int half = bin - 1;
  const uint64_t octave = uint64_t{1} << (kFirstOctave + half / 2);
  return half % 2 == 0 ? octave : octave + octave / 2;
}

}  // namespace

ReuseModel::ReuseModel(std::vector<uint16_t> parents)
    : parents_(std::move(parents)), ended_(parents_.size()), worth_(parents_.size()) {
  Refresh();
}

int ReuseModel::BinOf(uint64_t age) {
  if (age < (uint64_t{1} << kFirstOctave)) return 0;
  const int octave = static_cast<int>(std::bit_width(age)) - 1;
  const int half = static_cast<int>(age >> (octave - 1) & 1);
  return std::min(1 + 2 * (octave - kFirstOctave) + half, kBins - 1);
}

void ReuseModel::Add(std::vector<Evidence>& to, uint16_t cls, uint64_t age, float ends, float hits) {
  const int bin = BinOf(age);
  Evidence& e = to[cls];
  const auto b = static_cast<size_t>(bin);
  e.hits[b] += hits;
  e.ends[b] += ends;
  e.end_ticks[b] += ends * static_cast<float>(age - BinStart(bin));
}

void ReuseModel::AddWaiting(uint16_t cls, uint64_t age) {
  if (waiting_.empty()) waiting_.resize(parents_.size());
  Add(waiting_, cls, age, 1, 0);
}

void ReuseModel::Fade(float factor) {
  for (Evidence& e : ended_) {
    for (auto* values : {&e.hits, &e.ends, &e.end_ticks}) {
      for (float& value : *values) value *= factor;
    }
  }
}

ReuseModel::Curve ReuseModel::Hazard(const Evidence& evidence, const Curve& prior) {
  Curve hazard;
  float older = 0;  // that ended in a later bin, and so spent all of this one
  for (int bin = kBins - 1; bin >= 0; --bin) {
    const auto b = static_cast<size_t>(bin);
    const auto width = static_cast<float>(BinStart(bin + 1) - BinStart(bin));
    const float exposure = older * width + evidence.end_ticks[b];
    hazard[b] = (evidence.hits[b] + kPriorHits) / (exposure + kPriorHits / prior[b]);
    older += evidence.ends[b];
  }
  return hazard;
}

ReuseModel::Curve ReuseModel::WorthOf(const Curve& hazard) {
  std::array<float, kBins> hit;    // chance of a hit in the bin for a chunk that enters it
  std::array<float, kBins> ticks;  // mean ticks that it spends there
  for (int bin = 0; bin < kBins; ++bin) {
    const auto b = static_cast<size_t>(bin);
    const auto width = static_cast<float>(BinStart(bin + 1) - BinStart(bin));
    hit[b] = 1 - std::exp(-hazard[b] * width);
    ticks[b] = hit[b] / hazard[b];
  }
  Curve worth;
  for (size_t from = 0; from < kBins; ++from) {
    float best = 0;
    float hits = 0;
    float held = 0;
    float alive = 1;
    for (size_t b = from; b < kBins && alive > 1e-4F; ++b) {
      hits += alive * hit[b];
      held += alive * ticks[b];
      alive *= 1 - hit[b];
      best = std::max(best, hits / held);
    }
    worth[from] = best;
  }
  return worth;
}

void ReuseModel::Refresh() {
  Curve prior;
  for (int bin = 0; bin < kBins; ++bin) {
    prior[static_cast<size_t>(bin)] = kPriorReuse / static_cast<float>(BinStart(bin + 1));
  }
  // Evidence of waiting chunks is used up: it takes as much memory as all that is kept.
  std::vector<Evidence> total = std::exchange(waiting_, {});
  total.resize(parents_.size());
  const auto add = [](Evidence& to, const Evidence& e) {
    for (size_t b = 0; b < kBins; ++b) {
      to.hits[b] += e.hits[b];
      to.ends[b] += e.ends[b];
      to.end_ticks[b] += e.end_ticks[b];
    }
  };
  for (size_t cls = total.size(); cls-- > 0;) {
    add(total[cls], ended_[cls]);
    if (cls > 0) add(total[parents_[cls]], total[cls]);
  }
  std::vector<Curve> hazards(parents_.size());
  for (size_t cls = 0; cls < total.size(); ++cls) {
    const uint16_t parent = parents_[cls];
    const auto& ends = total[cls].ends;
    if (cls > 0 && std::all_of(ends.begin(), ends.end(), [](float e) { return e == 0; })) {
      hazards[cls] = hazards[parent];
      worth_[cls] = worth_[parent];
      continue;
    }
    hazards[cls] = Hazard(total[cls], cls == 0 ? prior : hazards[parent]);
    worth_[cls] = WorthOf(hazards[cls]);
  }
}

size_t ReuseModel::MemoryBytes() const {
  return HeapBytes(parents_) + HeapBytes(ended_) + HeapBytes(waiting_) + HeapBytes(worth_);
}

}  // namespace kdn
