#include "storage/eviction/prefix_policy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

namespace kdn {
namespace {

constexpr uint8_t kMaxTurn = 15;
constexpr int kTurns = 6;    // 0, 1, 2, 3, 4-5, 6 and more
constexpr int kGrowths = 6;  // chunks that the last request added: 0, 1, 2-3, 4-15, 16-63, more
constexpr int kGaps = 5;     // ticks since the use before: first use, under 2^10, under 2^13, under 2^16, more

// The tree of classes: the root, partial chunks, then turn, turn x growth, turn x growth x gap.
constexpr uint16_t kPartial = 1;
constexpr uint16_t kFirstTurn = 2;
constexpr uint16_t kFirstGrowth = kFirstTurn + kTurns;
constexpr uint16_t kFirstGap = kFirstGrowth + kTurns * kGrowths;
constexpr uint16_t kClasses = kFirstGap + kTurns * kGrowths * kGaps;

// The sample reaches back over this many uses per resident chunk, with this much room per resident chunk, and some for
// small caches to learn from.
constexpr uint64_t kReach = 16;
constexpr uint64_t kSamplesPerChunk = 1;
constexpr uint64_t kMinSamples = 4096;
constexpr uint64_t kGhostsPerChunk = 3;
// Evidence halves in as many ticks: long against the time that chunks stay, short against the life of a workload.
constexpr uint64_t kHalfLifePerChunk = 32;
constexpr uint64_t kMinHalfLife = 65536;
// Worths are computed anew when an eighth of the chunks may have been used.
constexpr uint64_t kMinInterval = 4096;
constexpr int kDraws = 32;

std::vector<uint16_t> ClassTree() {
  std::vector<uint16_t> parents(kClasses, 0);
  for (size_t c = 0; c < size_t{kTurns} * kGrowths; ++c) {
    parents[kFirstGrowth + c] = static_cast<uint16_t>(kFirstTurn + c / kGrowths);
  }
  for (size_t c = 0; c < size_t{kTurns} * kGrowths * kGaps; ++c) {
    parents[kFirstGap + c] = static_cast<uint16_t>(kFirstGrowth + c / kGaps);
  }
  return parents;
}

uint16_t ClassOf(const ChainRun& run) {
  if (run.partial) return kPartial;
  const int turn = run.turn < 4 ? run.turn : run.turn < 6 ? 4 : 5;
  const auto size_octave = static_cast<int>(std::bit_width(run.new_chunks));
  const int growth = size_octave < 3 ? size_octave : std::min((size_octave + 3) / 2, kGrowths - 1);
  const auto gap_octave = static_cast<int>(std::bit_width(run.gap));
  const int gap = run.gap == 0 ? 0 : std::clamp((gap_octave - 8) / 3 + 1, 1, kGaps - 1);
  return static_cast<uint16_t>(kFirstGap + (turn * kGrowths + growth) * kGaps + gap);
}

// What a ghost remembers of a chunk, in 32 bits: when it was used (in units of 256 ticks, modulo 2^32 ticks), whether a
// whole chunk followed it, and how many requests had used it.
uint32_t PackPast(uint64_t used, bool followed, uint8_t turn) {
  return (static_cast<uint32_t>(used) & ~uint32_t{255}) | (followed ? 16U : 0U) | std::min(turn, kMaxTurn);
}
bool FollowedOf(uint32_t past) { return (past & 16) != 0; }
uint8_t TurnOf(uint32_t past) { return static_cast<uint8_t>(past & 15); }
uint32_t TicksSince(uint32_t past, uint64_t now) { return static_cast<uint32_t>(now) - (past & ~uint32_t{255}); }

uint8_t NextTurn(uint8_t turn) { return static_cast<uint8_t>(std::min(turn + 1, int{kMaxTurn})); }

}  // namespace

PrefixPolicy::PrefixPolicy(const PolicyOptions& options)
    : EvictionPolicy(options),
      random_(options.seed),
      model_(ClassTree()),
      sampler_(model_, runs_, ClassOf),
      tree_(table_) {}

void PrefixPolicy::Tick() {
  ++now_;
  if (now_ >= next_adjustment_) Adjust();
}

void PrefixPolicy::Adjust() {
  const uint64_t chunks = size();
  const uint64_t samples = kMinSamples + kSamplesPerChunk * chunks;
  sampler_.Configure(samples, 1 + kReach * chunks / samples);
  ghosts_.Reserve(kGhostsPerChunk * chunks);
  const uint64_t interval = std::max(kMinInterval, chunks / 8);
  const auto half_life = static_cast<double>(kMinHalfLife + kHalfLifePerChunk * chunks);
  model_.Fade(static_cast<float>(std::exp2(-static_cast<double>(interval) / half_life)));
  sampler_.ReportWaiting(now_);
  model_.Refresh();
  next_adjustment_ = now_ + interval;
}

PrefixPolicy::ChunkState* PrefixPolicy::StateOf(const ChunkKey& key) {
  if (key.IsZero()) return nullptr;
  const Slot slot = table_.Find(key);
  // A chunk that is just being inserted has no run yet; it may name itself, or one of a circle, as its parent.
  if (slot < states_.size() && states_[slot].run != kNoRun) return &states_[slot];
  return asked_.state.run != kNoRun && asked_.key == key ? &asked_.state : nullptr;
}

RunId PrefixPolicy::Join(const ChunkState* parent, uint64_t parent_hash, uint64_t hash, const ChainRun& own,
                         bool is_new) {
  if (parent != nullptr && !own.partial) {
    ChainRun& run = runs_[parent->run];
    if (run.tip == parent_hash && run.turn == own.turn && !run.partial) {
      run.tip = hash;
      run.used = now_;
      run.new_chunks += is_new ? 1 : 0;
      return runs_.Share(parent->run);
    }
  }
  ChainRun run = own;
  run.used = now_;
  run.tip = hash;
  run.new_chunks = is_new ? 1 : 0;
  return runs_.Add(run);
}

void PrefixPolicy::Ask(const ChunkFacts& facts) {
  Tick();
  const uint64_t hash = HashOf(facts.key);
  ChunkState* const parent = StateOf(facts.parent);
  ChunkState state{.run = kNoRun, .tokens = facts.tokens, .weight = 1, .followed = false};
  const auto size = static_cast<float>(std::max<uint64_t>(facts.bytes, 1));
  state.weight = options().weigh_cost ? facts.CostPerByte() : 1 / size;
  ChainRun own;
  bool is_new = true;
  own.partial = parent != nullptr && facts.tokens < parent->tokens;
  if (const auto past = ghosts_.Take(hash)) {
    is_new = false;
    own.turn = NextTurn(TurnOf(*past));
    own.gap = std::max(TicksSince(*past, now_), 1U);
    state.followed = FollowedOf(*past);
  } else if (parent != nullptr && !parent->followed) {
    own.turn = runs_[parent->run].turn;
    own.gap = runs_[parent->run].gap;
  }
  if (parent != nullptr && !own.partial) parent->followed = true;
  state.run = Join(parent, HashOf(facts.parent), hash, own, is_new);
  sampler_.Use(hash, state.run, now_);
  ForgetAsked();
  asked_ = {facts.key, state};
}

void PrefixPolicy::ForgetAsked() {
  if (asked_.state.run != kNoRun) runs_.Release(asked_.state.run);
  asked_ = {};
}

void PrefixPolicy::Remember(const ChunkKey& key, const ChunkState& state) {
  const ChainRun& run = runs_[state.run];
  ghosts_.Record(HashOf(key), PackPast(run.used, state.followed, run.turn));
}

float PrefixPolicy::WorthOf(const ChunkState& state) const {
  const ChainRun& run = runs_[state.run];
  return state.weight * model_.Worth(ClassOf(run), now_ - run.used);
}

bool PrefixPolicy::ShouldAdmit(const ChunkFacts& facts) {
  Ask(facts);
  const uint64_t capacity = options().capacity_bytes;
  if (bytes() <= capacity && facts.bytes <= capacity - bytes()) return true;
  const bool reachable = facts.parent.IsZero() || !options().whole_chains || Contains(facts.parent);
  if (reachable) {
    next_victim_ = DrawLeaf([](const ChunkKey&) { return false; });
    if (next_victim_ == kNullSlot || WorthOf(asked_.state) >= WorthOf(states_[next_victim_])) return true;
  }
  Remember(facts.key, asked_.state);
  return false;
}

void PrefixPolicy::OnInsert(Slot slot, const ChunkFacts& facts) {
  if (asked_.state.run == kNoRun || asked_.key != facts.key) Ask(facts);
  tree_.Insert(slot, facts.parent);
  GrowTo(states_, table_.slot_count());
  states_[slot] = asked_.state;
  asked_ = {};
}

void PrefixPolicy::OnAccess(Slot slot) {
  Tick();
  next_victim_ = kNullSlot;
  ChunkState& state = states_[slot];
  const Slot above = tree_.ParentOf(slot);
  const ChunkState* parent = above != kNullSlot && table_[above].resident() ? &states_[above] : nullptr;
  const ChainRun& before = runs_[state.run];
  ChainRun own;
  own.turn = NextTurn(before.turn);
  own.gap = static_cast<uint32_t>(std::clamp<uint64_t>(now_ - before.used, 1, UINT32_MAX));
  own.partial = before.partial;
  const uint64_t hash = HashOf(table_[slot].key);
  const RunId run = Join(parent, parent == nullptr ? 0 : HashOf(table_[above].key), hash, own, false);
  runs_.Release(state.run);
  state.run = run;
  sampler_.Use(hash, run, now_);
  ForgetAsked();
}

bool PrefixPolicy::OnRemove(Slot slot, Removal removal) {
  if (removal == Removal::kEvicted) Remember(table_[slot].key, states_[slot]);
  next_victim_ = kNullSlot;
  runs_.Release(states_[slot].run);
  states_[slot] = {};
  return tree_.Remove(slot);
}

Slot PrefixPolicy::DrawLeaf(Pinned pinned) {
  const auto& leaves = tree_.leaves();
  if (leaves.empty()) return kNullSlot;
  // First all addresses, then all values: the draws are far apart in memory, and their misses overlap.
  std::array<Slot, kDraws> drawn;
  for (Slot& slot : drawn) {
    random_ = random_ * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX generator; its high bits are good
    slot = leaves[(random_ >> 32) * leaves.size() >> 32];
    __builtin_prefetch(&states_[slot]);
  }
  for (const Slot slot : drawn) __builtin_prefetch(&runs_[states_[slot].run]);
  Slot best = kNullSlot;
  float least = 0;
  for (const Slot slot : drawn) {
    const float worth = WorthOf(states_[slot]);
    // Of equal worth, the one unused for longest.
    if (best != kNullSlot && (worth > least || (worth == least && UsedOf(slot) >= UsedOf(best)))) continue;
    if (pinned(table_[slot].key)) continue;
    best = slot;
    least = worth;
  }
  return best;
}

Slot PrefixPolicy::PickVictim(Pinned pinned) {
  if (options().whole_chains) {
    for (Slot slot = tree_.FirstCutOff(); slot != kNullSlot; slot = tree_.NextCutOff(slot)) {
      if (!pinned(table_[slot].key)) return slot;
    }
  }
  // The newcomer was admitted because it is worth more than this one.
  const Slot next = std::exchange(next_victim_, kNullSlot);
  if (next != kNullSlot && tree_.IsLeaf(next) && !pinned(table_[next].key)) return next;
  if (const Slot slot = DrawLeaf(pinned); slot != kNullSlot) return slot;
  // All that were drawn are pinned. Look at every leaf, and then at what the pinned ones hang on.
  for (const Slot slot : tree_.leaves()) {
    if (!pinned(table_[slot].key)) return slot;
  }
  for (Slot slot = 0; slot < table_.slot_count(); ++slot) {
    if (table_[slot].resident() && !pinned(table_[slot].key)) return slot;
  }
  return kNullSlot;
}

void PrefixPolicy::ListColdestFirst(std::vector<Slot>& slots) const {
  for (Slot slot = 0; slot < table_.slot_count(); ++slot) {
    if (table_[slot].resident()) slots.push_back(slot);
  }
  std::ranges::stable_sort(slots, {}, [&](Slot slot) { return UsedOf(slot); });
}

size_t PrefixPolicy::PolicyMemoryBytes() const {
  return runs_.MemoryBytes() + model_.MemoryBytes() + sampler_.MemoryBytes() + tree_.MemoryBytes() +
         ghosts_.MemoryBytes() + HeapBytes(states_);
}

}  // namespace kdn
