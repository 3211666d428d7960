#include "integration/blend_models/tracking_task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>

namespace kdn::blend_models {
namespace {

using ::testing::AllOf;
using ::testing::Ge;
using ::testing::Le;
using ::testing::SizeIs;

constexpr uint32_t kPrompts = 400;  // of each number of hops

bool IsVariable(Token token) { return token < kTrackingVariables; }

bool IsValue(Token token) { return token >= kTrackingFirstValue && token < kTrackingFirstValue + kTrackingValues; }

struct Assignment {
  uint32_t chunk = 0;
  uint32_t place = 0;
  Token argument = 0;
};

// What a reader of the prompt finds, from its tokens alone.
std::map<Token, Assignment> ReadAssignments(const TrackingPrompt& prompt) {
  std::map<Token, Assignment> assignments;
  for (uint32_t chunk = 0; chunk < prompt.segments.size(); ++chunk) {
    const std::vector<Token>& segment = prompt.segments[chunk];
    for (uint32_t i = 1; i + 1 < segment.size(); i += 2) {
      EXPECT_TRUE(IsVariable(segment[i]));
      const bool first =
          assignments.emplace(segment[i], Assignment{.chunk = chunk, .place = i, .argument = segment[i + 1]}).second;
      EXPECT_TRUE(first) << "variable " << segment[i] << " is assigned twice";
    }
  }
  return assignments;
}

struct Resolution {
  std::optional<Token> value;  // none: UNK
  uint32_t hops = 0;
};

// Follows references, which must lead backwards.
Resolution Resolve(const std::map<Token, Assignment>& assignments, Token variable) {
  Resolution result;
  auto at = assignments.find(variable);
  while (at != assignments.end()) {
    const Assignment& from = at->second;
    if (IsValue(from.argument)) {
      result.value = from.argument;
      return result;
    }
    at = assignments.find(from.argument);
    if (at == assignments.end()) break;
    EXPECT_LE(at->second.chunk, from.chunk);
    if (at->second.chunk == from.chunk) {
      EXPECT_LT(at->second.place, from.place);
    } else {
      ++result.hops;
    }
  }
  return result;
}

template <typename Visit>
void ForEachPrompt(Visit visit) {
  for (uint32_t hops = 0; hops <= kTrackingMaxHops; ++hops) {
    TrackingTask task(1 + hops);
    for (uint32_t i = 0; i < kPrompts; ++i) visit(hops, task.Draw(hops));
  }
}

TEST(TrackingTaskTest, PromptsHaveTheDocumentedShape) {
  ForEachPrompt([](uint32_t, const TrackingPrompt& prompt) {
    ASSERT_THAT(prompt.segments, SizeIs(kTrackingChunks));
    for (const std::vector<Token>& segment : prompt.segments) {
      ASSERT_THAT(segment, SizeIs(1 + 2 * kTrackingStatements));
      EXPECT_EQ(segment[0], kTrackingSeparator);
      for (size_t i = 1; i < segment.size(); ++i)
        EXPECT_TRUE(IsVariable(segment[i]) || (IsValue(segment[i]) && i % 2 == 0));
    }
    ASSERT_THAT(prompt.question, SizeIs(2));
    EXPECT_EQ(prompt.question[0], kTrackingQuestion);
    EXPECT_TRUE(IsVariable(prompt.question[1]));
    EXPECT_TRUE(IsValue(prompt.answer));
  });
}

TEST(TrackingTaskTest, FollowingTheReferencesGivesTheAnswerInTheHopsAskedFor) {
  ForEachPrompt([](uint32_t hops, const TrackingPrompt& prompt) {
    const Resolution resolution = Resolve(ReadAssignments(prompt), prompt.question[1]);
    ASSERT_TRUE(resolution.value.has_value());
    EXPECT_EQ(*resolution.value, prompt.answer);
    EXPECT_EQ(resolution.hops, hops);
    EXPECT_EQ(prompt.hops, hops);
  });
}

TEST(TrackingTaskTest, AChunkAloneDoesNotAnswerAQuestionWithHops) {
  ForEachPrompt([](uint32_t hops, const TrackingPrompt& prompt) {
    if (hops == 0) return;
    const std::map<Token, Assignment> all = ReadAssignments(prompt);
    const uint32_t chunk = all.at(prompt.question[1]).chunk;
    const TrackingPrompt alone{.segments = {prompt.segments[chunk]}, .question = prompt.question};
    EXPECT_FALSE(Resolve(ReadAssignments(alone), prompt.question[1]).value.has_value());
  });
}

TEST(TrackingTaskTest, EachChunkHasTwoCrossChunkReferencesAndUpToTwoLocalOnes) {
  uint32_t local = 0;
  uint32_t chunks = 0;
  ForEachPrompt([&](uint32_t, const TrackingPrompt& prompt) {
    const std::map<Token, Assignment> assignments = ReadAssignments(prompt);
    std::vector<uint32_t> cross_in(kTrackingChunks);
    std::vector<uint32_t> local_in(kTrackingChunks);
    for (const auto& [variable, assignment] : assignments) {
      if (!IsVariable(assignment.argument)) continue;
      const auto target = assignments.find(assignment.argument);
      const bool is_local = target != assignments.end() && target->second.chunk == assignment.chunk;
      ++(is_local ? local_in : cross_in)[assignment.chunk];
      // A local reference needs nothing of other chunks, else hops would not count what blending has to mend.
      if (is_local) {
        EXPECT_TRUE(IsValue(target->second.argument));
      }
    }
    for (uint32_t chunk = 0; chunk < kTrackingChunks; ++chunk) {
      EXPECT_EQ(cross_in[chunk], kTrackingCrossReferences);
      EXPECT_LE(local_in[chunk], kTrackingLocalReferences);
      local += local_in[chunk];
      ++chunks;
    }
  });
  // Only a reference before all literals of its chunk is left out.
  EXPECT_GT(local, chunks * kTrackingLocalReferences * 8 / 10);
}

TEST(TrackingTaskTest, ReferencesAreUnknownInTheFirstChunkAndInATenthOfTheOthers) {
  uint32_t later = 0;
  uint32_t unassigned = 0;
  ForEachPrompt([&](uint32_t hops, const TrackingPrompt& prompt) {
    const std::map<Token, Assignment> assignments = ReadAssignments(prompt);
    for (const auto& [variable, assignment] : assignments) {
      if (!IsVariable(assignment.argument)) continue;
      const auto target = assignments.find(assignment.argument);
      const bool found = target != assignments.end();
      if (assignment.chunk == 0) {
        if (found) {
          EXPECT_EQ(target->second.chunk, 0U);
        }
      } else if (hops == 0 && (!found || target->second.chunk != assignment.chunk)) {
        // Asking for hops prefers prompts where references are found, so the share is read from prompts without.
        ++later;
        unassigned += found ? 0 : 1;
      }
    }
  });
  EXPECT_THAT(unassigned * 100 / later, AllOf(Ge(7U), Le(13U)));
}

TEST(TrackingTaskTest, AnswersAndQuestionsCoverAllValuesAndChunks) {
  std::set<Token> answers;
  std::vector<uint32_t> asked_in(kTrackingChunks);
  TrackingTask task(11);
  for (uint32_t i = 0; i < kPrompts; ++i) {
    const TrackingPrompt prompt = task.Draw(0);
    answers.insert(prompt.answer);
    ++asked_in[ReadAssignments(prompt).at(prompt.question[1]).chunk];
  }
  EXPECT_THAT(answers, SizeIs(kTrackingValues));
  for (const uint32_t count : asked_in) EXPECT_GT(count, kPrompts / 8);
}

TEST(TrackingTaskTest, ASeedGivesTheSamePromptsAndAnotherSeedOthers) {
  TrackingTask one(5);
  TrackingTask same(5);
  TrackingTask other(6);
  for (uint32_t i = 0; i < 20; ++i) {
    const TrackingPrompt prompt = one.Draw(i % 4);
    const TrackingPrompt again = same.Draw(i % 4);
    EXPECT_EQ(prompt.segments, again.segments);
    EXPECT_EQ(prompt.question, again.question);
    EXPECT_EQ(prompt.answer, again.answer);
    EXPECT_NE(prompt.segments, other.Draw(i % 4).segments);
  }
}

// Results are compared between machines, so the numbers drawn are part of the contract.
TEST(TrackingTaskTest, SeedOneIsTheSamePromptEverywhere) {
  TrackingTask task(1);
  const TrackingPrompt prompt = task.Draw(2);
  EXPECT_THAT(std::vector<Token>(prompt.segments[0].begin(), prompt.segments[0].begin() + 7),
              ::testing::ElementsAre(97, 25, 67, 37, 72, 49, 84));
  EXPECT_THAT(prompt.question, ::testing::ElementsAre(98, 2));
  EXPECT_EQ(prompt.answer, 75U);
}

TEST(TrackingTaskTest, MoreHopsThanThereCanBeAreTakenAsTheMost) {
  TrackingTask task(3);
  EXPECT_EQ(task.Draw(100).hops, kTrackingMaxHops);
}

}  // namespace
}  // namespace kdn::blend_models
