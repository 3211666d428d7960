#include "kdn-client/blend/segment_finder.h"

#include <algorithm>
#include <limits>
#include <random>
#include <tuple>

#include "storage/base/status.h"

namespace kdn {
namespace {

// What a window costs in the index at most (a place, and its share of a hash table that has just doubled), and a
// segment beside its tokens and windows.
constexpr size_t kBytesPerWindow = 64;
constexpr size_t kBytesPerSegment = 256;
constexpr uint32_t kMaxWindow = 1 << 16;
constexpr uint32_t kMaxCandidates = 1024;
constexpr size_t kMostTokens = std::numeric_limits<uint32_t>::max();

uint64_t DrawBase() {
  std::random_device device;
  uint64_t base = 0;
  while (base % WindowHash::kPrime < (uint64_t{1} << 32)) base = (uint64_t{device()} << 32) | device();
  return base;
}

}  // namespace

ChunkSpan ChunksOf(const FoundRun& run, uint32_t chunk_tokens) {
  if (run.tokens == 0) return {};
  return {.first = run.source / chunk_tokens, .end = (run.source + run.tokens - 1) / chunk_tokens + 1};
}

std::optional<FoundRun> CutToChunks(const FoundRun& run, uint32_t chunk_tokens) {
  const uint64_t source_end = uint64_t{run.source} + run.tokens;
  const uint64_t begin = (uint64_t{run.source} + chunk_tokens - 1) / chunk_tokens * chunk_tokens;
  const bool to_the_last = run.segment != nullptr && source_end == run.segment->tokens.size();
  const uint64_t end = to_the_last ? source_end : source_end / chunk_tokens * chunk_tokens;
  if (begin >= end) return std::nullopt;
  FoundRun cut = run;
  cut.begin += static_cast<uint32_t>(begin - run.source);
  cut.source = static_cast<uint32_t>(begin);
  cut.tokens = static_cast<uint32_t>(end - begin);
  return cut;
}

absl::StatusOr<std::unique_ptr<SegmentFinder>> SegmentFinder::Create(const SegmentFinderOptions& options) {
  if (options.window == 0 || options.window > kMaxWindow) {
    return InvalidArgument("segment finder: window is {} tokens; it must be 1 to {}", options.window, kMaxWindow);
  }
  if (options.stride == 0 || options.stride > kMaxWindow) {
    return InvalidArgument("segment finder: stride is {} tokens; it must be 1 to {}", options.stride, kMaxWindow);
  }
  if (options.max_candidates == 0 || options.max_candidates > kMaxCandidates) {
    return InvalidArgument("segment finder: max_candidates is {}; it must be 1 to {}", options.max_candidates,
                           kMaxCandidates);
  }
  // Places are numbered by 32 bits.
  constexpr size_t kMostBytes = kBytesPerWindow * kMostTokens;
  if (options.max_bytes > kMostBytes) {
    return InvalidArgument("segment finder: max_bytes is {}; it must be at most {}", options.max_bytes, kMostBytes);
  }
  const uint64_t base = options.hash_base != 0 ? options.hash_base : DrawBase();
  return std::unique_ptr<SegmentFinder>(new SegmentFinder(options, base));
}

size_t SegmentFinder::BytesOf(size_t tokens) const {
  const size_t windows = (tokens - options_.window) / options_.stride + 1;
  return kBytesPerSegment + tokens * sizeof(Token) + windows * kBytesPerWindow;
}

std::vector<uint64_t> SegmentFinder::WindowHashes(std::span<const Token> tokens) const {
  std::vector<uint64_t> hashes;
  if (tokens.size() < options_.window) return hashes;
  hashes.reserve((tokens.size() - options_.window) / options_.stride + 1);
  // Windows that do not overlap are hashed by themselves, so that a token is hashed once at most.
  if (options_.stride >= options_.window) {
    for (size_t at = 0; at + options_.window <= tokens.size(); at += options_.stride) {
      hashes.push_back(hash_.Of(tokens.subspan(at, options_.window)));
    }
    return hashes;
  }
  uint64_t hash = hash_.Of(tokens.first(options_.window));
  for (size_t at = 0;; ++at) {
    if (at % options_.stride == 0) hashes.push_back(hash);
    if (at + options_.window == tokens.size()) return hashes;
    hash = hash_.Roll(hash, tokens[at], tokens[at + options_.window]);
  }
}

std::optional<uint64_t> SegmentFinder::Add(std::span<const Token> segment) {
  if (segment.size() < options_.window || segment.size() > kMostTokens ||
      BytesOf(segment.size()) > options_.max_bytes) {
    MutexLock lock(mu_);
    segment.size() < options_.window ? ++counts_.too_short : ++counts_.too_long;
    return std::nullopt;
  }
  // Hashed and copied before the lock is taken.
  const std::vector<uint64_t> hashes = WindowHashes(segment);
  const uint64_t whole_hash = hash_.Of(segment);
  auto held = std::make_shared<FoundSegment>();
  held->tokens.assign(segment.begin(), segment.end());

  MutexLock lock(mu_);
  if (const std::optional<uint32_t> holder = HolderOf(segment, whole_hash, hashes.front())) {
    ++counts_.known;
    Touch(*holder);
    Index(*holder, hashes);
    return slots_[*holder].segment->id;
  }
  DropFrontsOf(segment, hashes.front());
  const size_t bytes = BytesOf(segment.size());
  while (counts_.bytes + bytes > options_.max_bytes) {
    ++counts_.evicted;
    Drop(recency_.back());
  }

  uint32_t slot = static_cast<uint32_t>(slots_.size());
  if (free_slots_.empty()) {
    slots_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  held->id = next_id_++;
  recency_.push_front(slot);
  slots_[slot] = {.segment = held, .whole_hash = whole_hash, .recency = recency_.begin()};
  by_whole_hash_[whole_hash] = slot;
  by_id_[held->id] = slot;
  ++counts_.added;
  ++counts_.segments;
  counts_.tokens += segment.size();
  counts_.bytes += bytes;
  wanted_windows_ += hashes.size();
  Index(slot, hashes);
  return held->id;
}

std::optional<uint32_t> SegmentFinder::HolderOf(std::span<const Token> tokens, uint64_t whole_hash,
                                                uint64_t first_window) const {
  const auto begins_with_tokens = [&](uint32_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const std::vector<Token>& held = slots_[slot].segment->tokens;
    return held.size() >= tokens.size() && std::equal(tokens.begin(), tokens.end(), held.begin());
  };
  const auto same = by_whole_hash_.find(whole_hash);
  if (same != by_whole_hash_.end() && begins_with_tokens(same->second)) return same->second;
  const auto places = by_window_.find(first_window);
  if (places == by_window_.end()) return std::nullopt;
  for (uint32_t p = places->second.head; p != kNone; p = places_[p].next) {
    if (places_[p].position == 0 && begins_with_tokens(places_[p].slot)) return places_[p].slot;
  }
  return std::nullopt;
}

void SegmentFinder::DropFrontsOf(std::span<const Token> tokens, uint64_t first_window) {
  const auto places = by_window_.find(first_window);
  if (places == by_window_.end()) return;
  std::vector<uint32_t> fronts;
  for (uint32_t p = places->second.head; p != kNone; p = places_[p].next) {
    const std::vector<Token>& held = slots_[places_[p].slot].segment->tokens;
    if (places_[p].position == 0 && held.size() < tokens.size() &&
        std::equal(held.begin(), held.end(), tokens.begin())) {
      fronts.push_back(places_[p].slot);
    }
  }
  for (const uint32_t front : fronts) {
    ++counts_.superseded;
    Drop(front);
  }
}

void SegmentFinder::Index(uint32_t slot, std::span<const uint64_t> hashes) {
  for (size_t i = 0; i < hashes.size(); ++i) {
    IndexWindow(slot, static_cast<uint32_t>(i * options_.stride), hashes[i]);
  }
}

void SegmentFinder::IndexWindow(uint32_t slot, uint32_t position, uint64_t hash) {
  Places& places = by_window_[hash];
  uint32_t* end = &places.head;
  for (; *end != kNone; end = &places_[*end].next) {
    if (places_[*end].slot == slot && places_[*end].position == position) return;
  }
  if (places.count >= options_.max_candidates) return;
  ++places.count;
  ++counts_.windows;
  const Place place = {.slot = slot, .position = position, .next = kNone};
  if (free_places_ != kNone) {
    const uint32_t at = free_places_;
    free_places_ = places_[at].next;
    places_[at] = place;
    *end = at;
    return;
  }
  *end = static_cast<uint32_t>(places_.size());  // before `end`, which may point into it, moves
  places_.push_back(place);
}

void SegmentFinder::ForgetWindow(uint32_t slot, uint32_t position, uint64_t hash) {
  const auto it = by_window_.find(hash);
  if (it == by_window_.end()) return;
  for (uint32_t* link = &it->second.head; *link != kNone; link = &places_[*link].next) {
    const uint32_t at = *link;
    if (places_[at].slot != slot || places_[at].position != position) continue;
    *link = places_[at].next;
    places_[at].next = free_places_;
    free_places_ = at;
    --counts_.windows;
    if (--it->second.count == 0) by_window_.erase(it);
    return;
  }
}

void SegmentFinder::Drop(uint32_t slot) {
  Slot& dropped = slots_[slot];
  const std::vector<uint64_t> hashes = WindowHashes(dropped.segment->tokens);
  for (size_t i = 0; i < hashes.size(); ++i) {
    ForgetWindow(slot, static_cast<uint32_t>(i * options_.stride), hashes[i]);
  }
  const auto same = by_whole_hash_.find(dropped.whole_hash);
  if (same != by_whole_hash_.end() && same->second == slot) by_whole_hash_.erase(same);
  by_id_.erase(dropped.segment->id);
  recency_.erase(dropped.recency);
  --counts_.segments;
  counts_.tokens -= dropped.segment->tokens.size();
  counts_.bytes -= BytesOf(dropped.segment->tokens.size());
  wanted_windows_ -= hashes.size();
  dropped = {};
  free_slots_.push_back(slot);
}

void SegmentFinder::Touch(uint32_t slot) { recency_.splice(recency_.begin(), recency_, slots_[slot].recency); }

bool SegmentFinder::Remove(uint64_t id) {
  MutexLock lock(mu_);
  const auto it = by_id_.find(id);
  if (it == by_id_.end()) return false;
  ++counts_.removed;
  Drop(it->second);
  return true;
}

std::optional<SegmentFinder::Match> SegmentFinder::BestAt(std::span<const Token> prompt, uint32_t at, uint64_t hash,
                                                          uint32_t floor) {
  const auto places = by_window_.find(hash);
  if (places == by_window_.end()) return std::nullopt;
  const auto rank = [&](const Match& m) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return std::tuple(-int64_t{m.length()}, m.source, slots_[m.slot].segment->id);
  };
  std::optional<Match> best;
  for (uint32_t p = places->second.head; p != kNone; p = places_[p].next) {
    const Place& place = places_[p];
    const std::vector<Token>& held = slots_[place.slot].segment->tokens;
    const auto [differs, _] =
        std::mismatch(prompt.begin() + at, prompt.end(), held.begin() + place.position, held.end());
    Match match = {.begin = at,
                   .end = static_cast<uint32_t>(differs - prompt.begin()),
                   .source = place.position,
                   .slot = place.slot};
    if (match.length() < options_.window) {
      ++counts_.collisions;
      continue;
    }
    while (match.begin > floor && match.source > 0 && prompt[match.begin - 1] == held[match.source - 1]) {
      --match.begin;
      --match.source;
    }
    if (!best.has_value() || rank(match) < rank(*best)) best = match;
  }
  return best;
}

void SegmentFinder::Append(std::span<const Token> prompt, Match match, std::vector<Match>& found) const {
  const auto begin_at = [&match](uint32_t begin) {
    match.source += begin - match.begin;  // unsigned: right where it moves back too
    match.begin = begin;
  };
  if (!found.empty() && match.begin < found.back().end) {
    Match& last = found.back();
    if (match.length() <= last.length()) {
      begin_at(last.end);
    } else if (match.begin == last.begin) {
      found.pop_back();
      const uint32_t floor = found.empty() ? 0 : found.back().end;
      const std::vector<Token>& held = slots_[match.slot].segment->tokens;
      while (match.begin > floor && match.source > 0 && prompt[match.begin - 1] == held[match.source - 1]) {
        begin_at(match.begin - 1);
      }
    } else {
      last.end = std::max(match.begin, last.begin + options_.window);
      begin_at(last.end);
    }
  }
  found.push_back(match);
}

std::vector<FoundRun> SegmentFinder::Find(std::span<const Token> prompt) {
  prompt = prompt.first(std::min(prompt.size(), kMostTokens));
  const uint32_t size = static_cast<uint32_t>(prompt.size());
  const uint32_t window = options_.window;
  std::vector<Match> found;
  std::vector<FoundRun> runs;

  MutexLock lock(mu_);
  ++counts_.searches;
  counts_.searched_tokens += size;
  uint64_t hash = 0;
  bool hashed = false;
  for (uint32_t at = 0; size >= window && at <= size - window && !by_window_.empty();) {
    if (!hashed) hash = hash_.Of(prompt.subspan(at, window));
    hashed = true;
    uint32_t floor = 0;
    if (!found.empty()) floor = found.back().length() <= kReach * window ? found.back().begin : found.back().end;
    if (const std::optional<Match> match = BestAt(prompt, at, hash, floor)) {
      at = match->end;
      hashed = false;
      Append(prompt, *match, found);
      continue;
    }
    if (at + window < size) hash = hash_.Roll(hash, prompt[at], prompt[at + window]);
    ++at;
  }
  runs.reserve(found.size());
  for (const Match& match : found) {
    Touch(match.slot);
    counts_.found_tokens += match.length();
    runs.push_back({.begin = match.begin,
                    .tokens = match.length(),
                    .source = match.source,
                    .segment = slots_[match.slot].segment});
  }
  return runs;
}

SegmentFinderCounts SegmentFinder::counts() const {
  MutexLock lock(mu_);
  SegmentFinderCounts counts = counts_;
  counts.dropped_windows = wanted_windows_ - counts_.windows;
  return counts;
}

}  // namespace kdn
