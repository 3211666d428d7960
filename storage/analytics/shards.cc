#include "storage/analytics/shards.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "storage/eviction/memory.h"

namespace kdn {
namespace {

constexpr uint64_t kUnitBytes = 64;  // slabs lie at multiples of it; chunks of up to 256 GiB fit

uint32_t UnitsOf(uint64_t bytes) {
  const uint64_t units = bytes / kUnitBytes + (bytes % kUnitBytes != 0 ? 1 : 0);
  return static_cast<uint32_t>(std::min<uint64_t>(units, std::numeric_limits<uint32_t>::max()));
}

// Between two renumberings half of the positions are used up.
constexpr size_t kPositionsPerSample = 2;

}  // namespace

Shards::Shards(size_t samples)
    : room_(std::max<size_t>(samples, 1)), index_(0, Hash{&samples_}, Equal{&samples_}), tree_(1, 0) {}

double Shards::rate() const {
  const uint64_t threshold = threshold_.load(std::memory_order_relaxed);
  return threshold == UINT64_MAX ? 1 : static_cast<double>(threshold) * 0x1p-64;
}

void Shards::Ask(uint64_t hash, uint64_t held_bytes, const Demand& demand, uint32_t now) {
  if (!Wants(hash)) return;
  const double stands_for = 1 / rate();
  counted_ += demand * stands_for;
  const auto it = index_.find(hash);
  if (it == index_.end()) return Admit(hash, held_bytes, now);
  Sample& sample = samples_[*it];
  SetUnits(sample, held_bytes, now);
  if (sample.units > 0) {
    const double others = static_cast<double>(UnitsAfter(sample.position)) * stands_for;
    const double distance = (others + sample.units) * static_cast<double>(kUnitBytes);
    curve_.Add(distance < 0x1p63 ? static_cast<uint64_t>(distance) : uint64_t{1} << 63, demand * stands_for);
  }
  sample.used = now;
  Renew(*it);
}

void Shards::Touch(uint64_t hash, uint64_t held_bytes, uint32_t now) {
  if (!Wants(hash)) return;
  const auto it = index_.find(hash);
  if (it == index_.end()) return Admit(hash, held_bytes, now);
  Sample& sample = samples_[*it];
  SetUnits(sample, held_bytes, now);
  sample.used = now;
  Renew(*it);
}

void Shards::Forget(uint64_t hash) {
  const auto it = index_.find(hash);
  if (it == index_.end()) return;
  Sample& sample = samples_[*it];
  AddUnits(sample.position, uint64_t{0} - sample.units);
  total_units_ -= sample.units;
  sample.units = 0;
}

std::optional<Shards::Ages> Shards::AgesOf(uint64_t hash, uint32_t now) const {
  const auto it = index_.find(hash);
  if (it == index_.end() || samples_[*it].units == 0) return std::nullopt;
  const Sample& sample = samples_[*it];
  return Ages{.since_stored = now - std::min(now, sample.stored), .since_used = now - std::min(now, sample.used)};
}

ReuseCurve Shards::Curve(const Demand& asked) const {
  ReuseCurve curve = curve_;
  Demand lacking = asked;
  lacking -= counted_;
  curve.AddToBucket(0, lacking);
  curve.SetAsked(asked);
  return curve;
}

void Shards::SetUnits(Sample& sample, uint64_t held_bytes, uint32_t now) {
  if (held_bytes == 0) return;  // what it took when it was last held still stands
  const uint32_t units = UnitsOf(held_bytes);
  if (sample.units == 0) sample.stored = now;
  if (units == sample.units) return;
  AddUnits(sample.position, uint64_t{units} - sample.units);
  total_units_ += uint64_t{units} - sample.units;
  sample.units = units;
}

void Shards::Admit(uint64_t hash, uint64_t held_bytes, uint32_t now) {
  const bool full = samples_.size() == room_;
  // What is greater than all others would leave at once.
  if (full && hash > samples_[by_hash_.front()].hash) return threshold_.store(hash, std::memory_order_relaxed);
  if (!full && samples_.size() == samples_.capacity()) Grow();
  if (next_position_ + size_t{1} == tree_.size()) Renumber();
  const Slot slot = full ? DropGreatest() : static_cast<Slot>(samples_.size());
  if (!full) samples_.emplace_back();
  samples_[slot] = {.hash = hash, .units = 0, .position = next_position_++, .used = now, .stored = now};
  by_hash_.push_back(slot);
  std::ranges::push_heap(by_hash_, ByHash{&samples_});
  index_.insert(slot);
  SetUnits(samples_[slot], held_bytes, now);
}

void Shards::Grow() {
  // By halves, but not beyond the room there is: what is held is promised.
  const size_t grown = std::min(room_, samples_.size() + samples_.size() / 2 + 64);
  samples_.reserve(grown);
  by_hash_.reserve(grown);
  tree_.reserve(grown * kPositionsPerSample + 1);  // resize alone would take more
  tree_.resize(tree_.capacity());
  Renumber();
}

Shards::Slot Shards::DropGreatest() {
  std::ranges::pop_heap(by_hash_, ByHash{&samples_});
  const Slot slot = by_hash_.back();
  by_hash_.pop_back();
  const Sample& greatest = samples_[slot];
  threshold_.store(greatest.hash, std::memory_order_relaxed);
  AddUnits(greatest.position, uint64_t{0} - greatest.units);
  total_units_ -= greatest.units;
  index_.erase(slot);
  return slot;
}

void Shards::Renew(Slot slot) {
  if (next_position_ + size_t{1} == tree_.size()) Renumber();
  Sample& sample = samples_[slot];
  if (sample.position + 1 == next_position_) return;  // it is the newest already
  AddUnits(sample.position, uint64_t{0} - sample.units);
  sample.position = next_position_++;
  AddUnits(sample.position, sample.units);
}

void Shards::Renumber() {
  // The tree is made anew in any case, so it lends its room: which sample has which position …
  std::ranges::fill(tree_, 0);
  std::vector<uint64_t>& at = tree_;
  for (Slot slot = 0; slot < samples_.size(); ++slot) at[samples_[slot].position] = slot + uint64_t{1};
  next_position_ = 0;
  for (uint64_t& entry : at) {
    const uint64_t slot = std::exchange(entry, 0);
    if (slot == 0) continue;
    Sample& sample = samples_[slot - 1];
    sample.position = next_position_++;
  }
  // … then the sums, each node telling the one above it.
  for (const Sample& sample : samples_) tree_[sample.position + 1] = sample.units;
  for (size_t i = 1; i < tree_.size(); ++i) {
    const size_t above = i + (i & (~i + 1));
    if (above < tree_.size()) tree_[above] += tree_[i];
  }
}

uint64_t Shards::UnitsAfter(uint32_t position) const {
  uint64_t up_to = 0;
  for (size_t i = position + size_t{1}; i > 0; i &= i - 1) up_to += tree_[i];
  return total_units_ - up_to;
}

void Shards::AddUnits(uint32_t position, uint64_t units) {
  for (size_t i = position + size_t{1}; i < tree_.size(); i += i & (~i + 1)) tree_[i] += units;
}

size_t Shards::MemoryBytes() const {
  return sizeof *this + HeapBytes(samples_) + HeapBytes(by_hash_) + HeapBytes(tree_) +
         index_.capacity() * (sizeof(Slot) + 1);
}

size_t Shards::MostMemoryBytes(size_t samples) {
  // The index has a power of two of places, less one. Above 25/32 of them it grows when it could clean up.
  const size_t places = std::bit_ceil(samples + samples * 7 / 25 + 2);
  return sizeof(Shards) + samples * (sizeof(Sample) + sizeof(Slot)) +
         (samples * kPositionsPerSample + 1) * sizeof(uint64_t) + places * (sizeof(Slot) + 1);
}

}  // namespace kdn
