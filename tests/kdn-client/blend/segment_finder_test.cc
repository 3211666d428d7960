#include "kdn-client/blend/segment_finder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>
#include <thread>

namespace kdn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Tokens = std::vector<Token>;
using Random = std::mt19937_64;

constexpr uint64_t kBase = 0x1234567890abcdef;

std::unique_ptr<SegmentFinder> Make(SegmentFinderOptions options = {}) {
  if (options.hash_base == 0) options.hash_base = kBase;
  return SegmentFinder::Create(options).value();
}

Tokens RandomTokens(size_t count, Random& random, Token vocabulary = 50'000) {
  Tokens tokens(count);
  for (Token& token : tokens) token = static_cast<Token>(random() % vocabulary);
  return tokens;
}

Tokens Slice(const Tokens& tokens, size_t begin, size_t count) {
  return {tokens.begin() + static_cast<std::ptrdiff_t>(begin),
          tokens.begin() + static_cast<std::ptrdiff_t>(begin + count)};
}

void Append(Tokens& to, const Tokens& more) { to.insert(to.end(), more.begin(), more.end()); }

// What a test compares: begin, tokens, source and segment of a run.
struct Where {
  uint32_t begin, tokens, source;
  uint64_t segment;
  friend bool operator==(const Where&, const Where&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Where& w) {
    return out << "{" << w.begin << ", " << w.tokens << ", " << w.source << ", " << w.segment << "}";
  }
};

std::vector<Where> Find(SegmentFinder& finder, const Tokens& prompt) {
  std::vector<Where> found;
  for (const FoundRun& run : finder.Find(prompt)) {
    found.push_back({run.begin, run.tokens, run.source, run.segment->id});
  }
  return found;
}

// What holds for all results: runs of a window or more, in order, of the tokens that they say, none of which can be
// prolonged in its segment without overlapping another.
void ExpectSound(const std::vector<FoundRun>& runs, const Tokens& prompt, uint32_t window) {
  for (size_t i = 0; i < runs.size(); ++i) {
    const FoundRun& run = runs[i];
    const Tokens& segment = run.segment->tokens;
    const uint32_t least = i == 0 ? 0 : runs[i - 1].end();
    const size_t most = i + 1 == runs.size() ? prompt.size() : runs[i + 1].begin;
    ASSERT_GE(run.tokens, window);
    ASSERT_GE(run.begin, least);
    ASSERT_LE(run.end(), most);
    ASSERT_LE(size_t{run.source} + run.tokens, segment.size());
    ASSERT_EQ(Slice(prompt, run.begin, run.tokens), Slice(segment, run.source, run.tokens));
    if (run.begin > least && run.source > 0) {
      ASSERT_NE(prompt[run.begin - 1], segment[run.source - 1]);
    }
    if (run.end() < most && run.source + run.tokens < segment.size()) {
      ASSERT_NE(prompt[run.end()], segment[run.source + run.tokens]);
    }
  }
}

// The same rule without hashes or an index: every window of every segment is compared with every offset of the prompt.
struct NaiveFinder {
  uint32_t window, stride;
  std::vector<std::pair<uint64_t, Tokens>> segments;  // by id

  struct Hit {
    size_t begin, end, source, segment;
    size_t length() const { return end - begin; }
  };

  static bool Precedes(const Tokens& prompt, const Hit& hit, const Tokens& segment) {
    return hit.source > 0 && prompt[hit.begin - 1] == segment[hit.source - 1];
  }

  std::vector<Where> Find(const Tokens& prompt) const {
    std::vector<Hit> found;
    for (size_t at = 0; at + window <= prompt.size();) {
      size_t floor = 0;
      if (!found.empty()) {
        const Hit& last = found.back();
        floor = last.length() <= size_t{SegmentFinder::kReach} * window ? last.begin : last.end;
      }
      std::vector<Hit> hits;
      for (size_t s = 0; s < segments.size(); ++s) {
        const Tokens& segment = segments[s].second;
        for (size_t position = 0; position + window <= segment.size(); position += stride) {
          Hit hit = {at, at, position, s};
          while (hit.end < prompt.size() && position + hit.length() < segment.size() &&
                 prompt[hit.end] == segment[position + hit.length()]) {
            ++hit.end;
          }
          if (hit.length() < window) continue;
          for (; hit.begin > floor && Precedes(prompt, hit, segment); --hit.begin) --hit.source;
          hits.push_back(hit);
        }
      }
      if (hits.empty()) {
        ++at;
        continue;
      }
      Hit best = *std::min_element(hits.begin(), hits.end(), [](const Hit& a, const Hit& b) {
        return std::tuple(b.length(), a.source, a.segment) < std::tuple(a.length(), b.source, b.segment);
      });
      at = best.end;
      if (!found.empty() && best.begin < found.back().end) {
        size_t begin = found.back().end;
        if (best.length() > found.back().length()) {
          if (best.begin == found.back().begin) {
            found.pop_back();
            const size_t end = found.empty() ? 0 : found.back().end;
            begin = best.begin;
            Hit longer = best;
            for (; longer.begin > end && Precedes(prompt, longer, segments[best.segment].second); --longer.begin) {
              --longer.source;
            }
            best = longer;
            begin = best.begin;
          } else {
            found.back().end = begin = std::max(best.begin, found.back().begin + window);
          }
        }
        best.source += begin - best.begin;
        best.begin = begin;
      }
      found.push_back(best);
    }
    std::vector<Where> runs;
    for (const Hit& hit : found) {
      runs.push_back({static_cast<uint32_t>(hit.begin), static_cast<uint32_t>(hit.length()),
                      static_cast<uint32_t>(hit.source), segments[hit.segment].first});
    }
    return runs;
  }
};

TEST(SegmentFinderTest, FindsSegmentsAnywhereInAPrompt) {
  Random random(1);
  const auto finder = Make();
  const Tokens system = RandomTokens(100, random);
  const Tokens first = RandomTokens(700, random);
  const Tokens second = RandomTokens(333, random);
  const uint64_t s = finder->Add(system).value();
  const uint64_t a = finder->Add(first).value();
  const uint64_t b = finder->Add(second).value();
  Tokens prompt = system;
  Append(prompt, second);
  Append(prompt, RandomTokens(7, random));
  Append(prompt, first);
  Append(prompt, RandomTokens(20, random));
  EXPECT_THAT(Find(*finder, prompt), ElementsAre(Where{0, 100, 0, s}, Where{100, 333, 0, b}, Where{440, 700, 0, a}));
  const std::vector<FoundRun> runs = finder->Find(prompt);
  EXPECT_TRUE(runs[0].AtFront());
  EXPECT_FALSE(runs[1].AtFront());
  EXPECT_EQ(runs[2].segment->tokens, first);
}

TEST(SegmentFinderTest, FindsAPieceOfASegment) {
  Random random(2);
  const auto finder = Make();
  const Tokens document = RandomTokens(1000, random);
  const uint64_t id = finder->Add(document).value();
  Tokens prompt = RandomTokens(50, random);
  Append(prompt, Slice(document, 321, 200));
  Append(prompt, RandomTokens(50, random));
  EXPECT_THAT(Find(*finder, prompt), ElementsAre(Where{50, 200, 321, id}));
}

TEST(SegmentFinderTest, AnEditLeavesTheTextAroundIt) {
  Random random(3);
  const auto finder = Make();
  Tokens document = RandomTokens(600, random);
  const uint64_t id = finder->Add(document).value();
  document[300] += 1;
  document.insert(document.begin() + 400, 9);
  document.erase(document.begin() + 500);  // token 499 of the original
  EXPECT_THAT(Find(*finder, document), ElementsAre(Where{0, 300, 0, id}, Where{301, 99, 301, id},
                                                   Where{401, 99, 400, id}, Where{500, 100, 500, id}));
}

TEST(SegmentFinderTest, EmptyAndShortTextsAreNoTrouble) {
  Random random(4);
  const auto finder = Make();
  EXPECT_THAT(finder->Find({}), IsEmpty());
  EXPECT_EQ(finder->Add({}), std::nullopt);
  EXPECT_EQ(finder->Add(RandomTokens(31, random)), std::nullopt);
  EXPECT_EQ(finder->counts().too_short, 2u);
  const Tokens shortest = RandomTokens(32, random);
  const uint64_t id = finder->Add(shortest).value();
  EXPECT_THAT(finder->Find({}), IsEmpty());
  EXPECT_THAT(Find(*finder, Slice(shortest, 0, 31)), IsEmpty());
  EXPECT_THAT(Find(*finder, shortest), ElementsAre(Where{0, 32, 0, id}));
  EXPECT_FALSE(finder->Remove(0));
  EXPECT_FALSE(finder->Remove(id + 1));
  EXPECT_TRUE(finder->Remove(id));
  EXPECT_FALSE(finder->Remove(id));
  EXPECT_THAT(Find(*finder, shortest), IsEmpty());
}

TEST(SegmentFinderTest, OptionsAreChecked) {
  const auto error = [](const SegmentFinderOptions& options) {
    const auto finder = SegmentFinder::Create(options);
    EXPECT_EQ(finder.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(finder.status().message());
  };
  EXPECT_THAT(error({.window = 0}), HasSubstr("window is 0"));
  EXPECT_THAT(error({.window = 1 << 17}), HasSubstr("window is 131072"));
  EXPECT_THAT(error({.stride = 0}), HasSubstr("stride is 0"));
  EXPECT_THAT(error({.stride = UINT32_MAX}), HasSubstr("stride is"));
  EXPECT_THAT(error({.max_candidates = 0}), HasSubstr("max_candidates is 0"));
  EXPECT_THAT(error({.max_candidates = 2000}), HasSubstr("max_candidates is 2000"));
  EXPECT_THAT(error({.max_bytes = SIZE_MAX}), HasSubstr("max_bytes is"));
}

TEST(SegmentFinderTest, ResultsAreThoseOfComparingEverything) {
  // Small vocabularies make chance matches, overlaps and periods common; no candidates are dropped.
  for (uint64_t seed = 0; seed < 150; ++seed) {
    Random random(seed);
    const auto window = static_cast<uint32_t>(1 + random() % 8);
    const auto stride = static_cast<uint32_t>(1 + random() % 8);
    const auto vocabulary = static_cast<Token>(2 + random() % 4);
    const auto finder = Make({.window = window, .stride = stride, .max_candidates = 1024});
    NaiveFinder naive = {window, stride, {}};
    std::vector<Tokens> texts;
    for (int i = 0; i < 5; ++i) {
      Tokens text = RandomTokens(1 + random() % 60, random, vocabulary);
      if (!texts.empty() && random() % 2 == 0) {  // shares a piece with another
        const Tokens& other = texts[random() % texts.size()];
        const size_t begin = random() % other.size();
        Append(text, Slice(other, begin, random() % (other.size() - begin + 1)));
      }
      texts.push_back(text);
      const std::optional<uint64_t> id = finder->Add(text);
      ASSERT_EQ(id.has_value(), text.size() >= window);
    }
    for (int p = 0; p < 6; ++p) {
      Tokens prompt;
      while (prompt.size() < 150) {
        const Tokens& text = texts[random() % texts.size()];
        const size_t begin = random() % text.size();
        Append(prompt, Slice(text, begin, random() % (text.size() - begin + 1)));
        if (random() % 3 == 0) Append(prompt, RandomTokens(random() % 10, random, vocabulary));
      }
      const std::vector<FoundRun> runs = finder->Find(prompt);
      ExpectSound(runs, prompt, window);
      // What is held is told by the finder: fronts of one another are held once.
      naive.segments.clear();
      for (const Tokens& text : texts) {
        const std::optional<uint64_t> id = finder->Add(text);
        if (!id.has_value()) continue;
        const bool known = std::any_of(naive.segments.begin(), naive.segments.end(),
                                       [&](const auto& segment) { return segment.first == *id; });
        const auto longest = std::max_element(texts.begin(), texts.end(), [&](const Tokens& a, const Tokens& b) {
          const auto begins = [&](const Tokens& t) {
            return t.size() >= text.size() && std::equal(text.begin(), text.end(), t.begin());
          };
          return std::tuple(begins(a), a.size()) < std::tuple(begins(b), b.size());
        });
        if (!known) naive.segments.emplace_back(*id, *longest);
      }
      std::sort(naive.segments.begin(), naive.segments.end());
      ASSERT_EQ(finder->counts().segments, naive.segments.size());
      ASSERT_EQ(finder->counts().dropped_windows, 0u);
      ASSERT_EQ(Find(*finder, prompt), naive.Find(prompt)) << "seed " << seed << ", prompt " << p;
    }
  }
}

TEST(SegmentFinderTest, MissesNothingOfWindowAndStrideLessOne) {
  for (const auto& [window, stride] :
       {std::pair(32u, 16u), std::pair(8u, 8u), std::pair(5u, 13u), std::pair(16u, 1u)}) {
    Random random(window);
    const auto finder = Make({.window = window, .stride = stride});
    const Tokens document = RandomTokens(400, random);
    const uint64_t id = finder->Add(document).value();
    const uint32_t sure = window + stride - 1;
    bool missed = false;
    for (uint32_t source = 0; source + sure <= document.size(); ++source) {
      Tokens prompt = RandomTokens(source % 40, random);
      const auto begin = static_cast<uint32_t>(prompt.size());
      Tokens shorter = prompt;
      Append(prompt, Slice(document, source, sure));
      const Tokens after = RandomTokens(10, random);
      Append(prompt, after);
      ASSERT_EQ(Find(*finder, prompt), (std::vector<Where>{{begin, sure, source, id}})) << source;
      // One less is found where a window at a multiple of the stride lies in it, and only there.
      Append(shorter, Slice(document, source, sure - 1));
      Append(shorter, after);
      const uint32_t aligned = (source + stride - 1) / stride * stride;
      const bool holds_window = aligned + window <= source + sure - 1;
      missed |= !holds_window;
      ASSERT_EQ(finder->Find(shorter).size(), holds_window ? 1u : 0u) << source;
    }
    EXPECT_TRUE(missed) << "the bound is sharp";
  }
}

TEST(SegmentFinderTest, TheLongestOfTheSegmentsThatStandThereIsTaken) {
  Random random(5);
  const auto finder = Make();
  const Tokens heading = RandomTokens(60, random);
  std::vector<Tokens> documents;
  std::vector<uint64_t> ids;
  for (int i = 0; i < 6; ++i) {
    documents.push_back(heading);
    Append(documents.back(), RandomTokens(300, random));
    ids.push_back(finder->Add(documents.back()).value());
  }
  for (size_t i = 0; i < documents.size(); ++i) {
    EXPECT_THAT(Find(*finder, documents[i]), ElementsAre(Where{0, 360, 0, ids[i]}));
  }
  EXPECT_THAT(Find(*finder, heading), ElementsAre(Where{0, 60, 0, ids[0]})) << "of equals, the one added first";
}

TEST(SegmentFinderTest, AHeadingInMoreSegmentsThanCandidatesDoesNotCutOffADocument) {
  Random random(6);
  const auto finder = Make({.max_candidates = 2});
  const Tokens heading = RandomTokens(90, random);
  std::vector<Tokens> documents;
  std::vector<uint64_t> ids;
  for (int i = 0; i < 20; ++i) {
    documents.push_back(heading);
    Append(documents.back(), RandomTokens(300, random));
    ids.push_back(finder->Add(documents.back()).value());
  }
  EXPECT_GT(finder->counts().dropped_windows, 0u);
  Tokens prompt = RandomTokens(40, random);
  for (const Tokens& document : documents) Append(prompt, document);
  std::vector<Where> expected;
  for (uint32_t i = 0; i < 20; ++i) expected.push_back({40 + 390 * i, 390, 0, ids[i]});
  EXPECT_EQ(Find(*finder, prompt), expected);
}

TEST(SegmentFinderTest, ALongerRunTakesTokensFromTheShorterBeforeIt) {
  Random random(7);
  const auto finder = Make({.window = 8, .stride = 8});
  const Tokens shared = RandomTokens(12, random);
  Tokens before = RandomTokens(20, random);
  Append(before, shared);
  Tokens after = RandomTokens(4, random);  // what is shared is no window's beginning in it
  Append(after, shared);
  Append(after, RandomTokens(100, random));
  const uint64_t a = finder->Add(before).value();
  const uint64_t b = finder->Add(after).value();
  Tokens prompt = before;
  Append(prompt, Slice(after, 16, 100));
  EXPECT_THAT(Find(*finder, prompt), ElementsAre(Where{0, 20, 0, a}, Where{20, 112, 4, b}));
}

TEST(SegmentFinderTest, ASegmentIsHeldOnce) {
  Random random(8);
  const auto finder = Make();
  const Tokens conversation = RandomTokens(500, random);
  const uint64_t turn = finder->Add(Slice(conversation, 0, 200)).value();
  EXPECT_EQ(finder->Add(Slice(conversation, 0, 200)), turn);
  EXPECT_EQ(finder->Add(Slice(conversation, 0, 100)), turn) << "the front of it";
  EXPECT_EQ(finder->counts().segments, 1u);
  EXPECT_EQ(finder->counts().known, 2u);
  const uint64_t whole = finder->Add(conversation).value();
  EXPECT_NE(whole, turn);
  EXPECT_EQ(finder->counts().segments, 1u);
  EXPECT_EQ(finder->counts().superseded, 1u);
  EXPECT_EQ(finder->counts().tokens, 500u);
  EXPECT_FALSE(finder->Remove(turn));
  EXPECT_THAT(Find(*finder, conversation), ElementsAre(Where{0, 500, 0, whole}));
  const uint64_t piece = finder->Add(Slice(conversation, 100, 300)).value();
  EXPECT_NE(piece, whole) << "a piece that is not the front has chunks of its own";
  EXPECT_EQ(finder->counts().segments, 2u);
}

TEST(SegmentFinderTest, TheLeastRecentlyUsedGoesFirst) {
  Random random(9);
  std::vector<Tokens> documents;
  for (int i = 0; i < 5; ++i) documents.push_back(RandomTokens(320, random));
  size_t one = 0;
  {
    const auto finder = Make();
    finder->Add(documents[0]);
    one = finder->counts().bytes;
  }
  const auto finder = Make({.max_bytes = 3 * one});
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(finder->Add(documents[static_cast<size_t>(i)]).has_value());
  EXPECT_EQ(finder->counts().evicted, 0u);
  EXPECT_EQ(finder->Find(documents[0]).size(), 1u);  // used by a search,
  finder->Add(documents[1]);                         // and by being added again
  finder->Add(documents[3]);
  EXPECT_EQ(finder->counts().evicted, 1u);
  EXPECT_THAT(finder->Find(documents[2]), IsEmpty());
  for (const size_t i : {size_t{0}, size_t{1}, size_t{3}}) EXPECT_EQ(finder->Find(documents[i]).size(), 1u) << i;
  EXPECT_LE(finder->counts().bytes, 3 * one);
  EXPECT_EQ(finder->Add(RandomTokens(2000, random)), std::nullopt) << "does not fit by itself";
  EXPECT_EQ(finder->counts().too_long, 1u);
  EXPECT_EQ(finder->counts().segments, 3u) << "and drives nothing out";
}

TEST(SegmentFinderTest, AResultOutlivesItsSegment) {
  Random random(10);
  const auto finder = Make();
  const Tokens document = RandomTokens(100, random);
  const uint64_t id = finder->Add(document).value();
  const std::vector<FoundRun> runs = finder->Find(document);
  ASSERT_TRUE(finder->Remove(id));
  EXPECT_EQ(runs.at(0).segment->tokens, document);
}

TEST(SegmentFinderTest, CountsAreThoseOfWhatIsHeldAfterAnyHistory) {
  Random random(11);
  const auto finder = Make({.window = 4, .stride = 2, .max_bytes = 20'000, .max_candidates = 3});
  std::vector<Tokens> texts;
  for (int i = 0; i < 60; ++i) texts.push_back(RandomTokens(4 + random() % 40, random, 3));
  std::vector<uint64_t> ids;
  for (int step = 0; step < 3000; ++step) {
    if (random() % 3 == 0 && !ids.empty()) {
      finder->Remove(ids[random() % ids.size()]);
    } else if (const auto id = finder->Add(texts[random() % texts.size()])) {
      ids.push_back(*id);
    }
    const Tokens& prompt = texts[random() % texts.size()];
    ASSERT_NO_FATAL_FAILURE(ExpectSound(finder->Find(prompt), prompt, 4));
    ASSERT_LE(finder->counts().bytes, 20'000u);
  }
  const SegmentFinderCounts busy = finder->counts();
  EXPECT_GT(busy.evicted, 0u);
  EXPECT_GT(busy.dropped_windows, 0u);
  EXPECT_EQ(busy.segments, busy.added - busy.removed - busy.evicted - busy.superseded);
  for (const uint64_t id : ids) finder->Remove(id);
  const SegmentFinderCounts empty = finder->counts();
  EXPECT_EQ(empty.segments, 0u);
  EXPECT_EQ(empty.tokens, 0u);
  EXPECT_EQ(empty.windows, 0u);
  EXPECT_EQ(empty.dropped_windows, 0u);
  EXPECT_EQ(empty.bytes, 0u);
  EXPECT_THAT(finder->Find(texts[0]), IsEmpty());
}

TEST(SegmentFinderTest, WindowsWithoutRoomAreTriedAgain) {
  Random random(12);
  const auto finder = Make({.max_candidates = 1});
  const Tokens shared = RandomTokens(64, random);
  Tokens first = shared;
  Append(first, RandomTokens(40, random));
  Tokens second = shared;
  Append(second, RandomTokens(40, random));
  const uint64_t a = finder->Add(first).value();
  const uint64_t b = finder->Add(second).value();
  EXPECT_THAT(Find(*finder, shared), ElementsAre(Where{0, 64, 0, a}));
  finder->Remove(a);
  EXPECT_THAT(Find(*finder, shared), IsEmpty());
  EXPECT_EQ(finder->Add(second), b);
  EXPECT_THAT(Find(*finder, shared), ElementsAre(Where{0, 64, 0, b}));
  EXPECT_EQ(finder->counts().dropped_windows, 0u);
}

TEST(SegmentFinderTest, EqualAndPeriodicTextIsFoundInLinearWork) {
  for (const size_t period : {size_t{1}, size_t{2}, size_t{7}, size_t{16}, size_t{33}}) {
    const auto finder = Make();
    const auto periodic = [&](size_t count) {
      Tokens tokens(count);
      for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<Token>(i % period);
      return tokens;
    };
    const uint64_t id = finder->Add(periodic(10'000)).value();
    // 16 and 33 meet the stride of 16 in one place a period, and in 33.
    const uint64_t distinct = period == 33 ? 33 : (period == 7 ? 7 : (period == 16 || period <= 2 ? 1 : period));
    EXPECT_LE(finder->counts().windows, distinct * 8);
    const Tokens prompt = periodic(200'000);
    const std::vector<FoundRun> runs = finder->Find(prompt);
    ASSERT_NO_FATAL_FAILURE(ExpectSound(runs, prompt, 32));
    EXPECT_EQ(runs.front().segment->id, id);
    EXPECT_GE(runs.front().tokens, 9'000u);
    EXPECT_GE(finder->counts().found_tokens, 199'000u);
    EXPECT_LE(runs.size(), 40u);
  }
}

TEST(SegmentFinderTest, WindowsThatCollideAreToldApart) {
  // By base 1 a window's hash is the sum of its tokens: all orders of them collide.
  Random random(13);
  const auto finder = Make({.window = 16, .stride = 4, .max_candidates = 4, .hash_base = 1});
  Tokens document(64);
  for (size_t i = 0; i < document.size(); ++i) document[i] = static_cast<Token>(i % 16);
  std::vector<Tokens> shuffled;
  for (int i = 0; i < 50; ++i) {
    shuffled.push_back(document);
    for (size_t block = 0; block < 4; ++block) {
      const auto begin = shuffled.back().begin() + static_cast<std::ptrdiff_t>(16 * block);
      std::shuffle(begin, begin + 16, random);
    }
    ASSERT_TRUE(finder->Add(shuffled.back()).has_value());
  }
  EXPECT_GT(finder->counts().dropped_windows, 0u) << "more places than candidates";
  Tokens prompt;
  for (int i = 0; i < 2000; ++i) {
    Tokens block(16);
    for (Token t = 0; t < 16; ++t) block[t] = t;
    std::shuffle(block.begin(), block.end(), random);
    Append(prompt, block);
  }
  Append(prompt, shuffled[0]);
  const std::vector<FoundRun> runs = finder->Find(prompt);
  ASSERT_NO_FATAL_FAILURE(ExpectSound(runs, prompt, 16));
  ASSERT_FALSE(runs.empty());
  EXPECT_EQ(runs.back().end(), prompt.size()) << "what is there is found among what collides";
  const SegmentFinderCounts counts = finder->counts();
  EXPECT_GT(counts.collisions, 0u);
  EXPECT_LE(counts.collisions, prompt.size() * 4) << "no more than max_candidates are compared at an offset";
}

TEST(SegmentFinderTest, TokensOfAllValuesAreHashedRight) {
  // Rolled over extreme tokens and back, a hash is that of the window.
  Random random(14);
  for (const uint64_t base :
       {uint64_t{1}, uint64_t{2}, WindowHash::kPrime - 1, WindowHash::kPrime, UINT64_MAX, kBase}) {
    const WindowHash hash(5, base);
    Tokens tokens(300);
    for (Token& token : tokens)
      token = random() % 3 == 0 ? UINT32_MAX : (random() % 2 == 0 ? 0 : static_cast<Token>(random()));
    uint64_t rolled = hash.Of(std::span(tokens).first(5));
    for (size_t at = 0; at + 5 < tokens.size(); ++at) {
      rolled = hash.Roll(rolled, tokens[at], tokens[at + 5]);
      ASSERT_EQ(rolled, hash.Of(std::span(tokens).subspan(at + 1, 5))) << base;
      ASSERT_LT(rolled, WindowHash::kPrime);
    }
  }
}

TEST(SegmentFinderTest, RunsDoNotDependOnTheHash) {
  Random random(15);
  std::vector<Tokens> documents;
  for (int i = 0; i < 30; ++i) documents.push_back(RandomTokens(100 + random() % 300, random, 1000));
  Tokens prompt;
  for (int i = 0; i < 60; ++i) {
    const Tokens& document = documents[random() % documents.size()];
    const size_t begin = random() % document.size();
    Append(prompt, Slice(document, begin, document.size() - begin));
  }
  std::vector<std::vector<Where>> results;
  for (const uint64_t base : {kBase, uint64_t{12345}, uint64_t{0}, uint64_t{0}}) {  // 0: drawn
    const auto finder = SegmentFinder::Create({.hash_base = base}).value();
    for (const Tokens& document : documents) finder->Add(document);
    results.push_back(Find(*finder, prompt));
    EXPECT_EQ(Find(*finder, prompt), results.back()) << "nor on what was searched before";
  }
  EXPECT_GT(results[0].size(), 20u);
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

TEST(SegmentFinderTest, MayBeUsedByManyThreads) {
  const auto finder = Make({.max_bytes = 40'000});
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&finder, t] {
      Random random(t);
      for (int i = 0; i < 100; ++i) {
        const Tokens document = RandomTokens(200, random, 100);
        const std::optional<uint64_t> id = finder->Add(document);
        Tokens prompt = RandomTokens(10, random, 100);
        Append(prompt, document);
        ExpectSound(finder->Find(prompt), prompt, 32);
        if (i % 3 == 0) finder->Remove(id.value());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(finder->counts().searches, 400u);
}

TEST(SegmentFinderTest, RunsNameTheirChunks) {
  auto segment = std::make_shared<FoundSegment>();
  segment->tokens.resize(600);
  const auto run = [&](uint32_t source, uint32_t tokens) {
    return FoundRun{.begin = 1000, .tokens = tokens, .source = source, .segment = segment};
  };
  EXPECT_EQ(ChunksOf(run(0, 600), 256), (ChunkSpan{0, 3}));
  EXPECT_EQ(ChunksOf(run(255, 2), 256), (ChunkSpan{0, 2}));
  EXPECT_EQ(ChunksOf(run(256, 256), 256), (ChunkSpan{1, 2}));
  EXPECT_EQ(ChunksOf(run(512, 0), 256), (ChunkSpan{0, 0}));

  const auto cut = [&](uint32_t source, uint32_t tokens) -> std::vector<uint32_t> {
    const std::optional<FoundRun> whole = CutToChunks(run(source, tokens), 256);
    if (!whole.has_value()) return {};
    return {whole->begin, whole->tokens, whole->source};
  };
  EXPECT_THAT(cut(0, 600), ElementsAre(1000, 600, 0)) << "the segment's last chunk is short";
  EXPECT_THAT(cut(0, 599), ElementsAre(1000, 512, 0));
  EXPECT_THAT(cut(1, 599), ElementsAre(1255, 344, 256));
  EXPECT_THAT(cut(1, 500), IsEmpty());
  EXPECT_THAT(cut(520, 80), IsEmpty()) << "a piece of the last chunk";
  EXPECT_THAT(cut(500, 100), ElementsAre(1012, 88, 512));
}

}  // namespace
}  // namespace kdn
