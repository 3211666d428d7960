// TrackingTask: prompts of the variable-tracking task that tracking.py trains models for; their answers need attention
// between segments.
//
//   TrackingTask task(/*seed=*/7);
//   const TrackingPrompt prompt = task.Draw(/*hops=*/2);
//   // prefill prompt.segments one after another, then prompt.question: the next token is to be prompt.answer
//
// A prompt is kTrackingChunks segments and a question. A segment is SEP and kTrackingStatements statements of two
// tokens: `VAR literal` assigns a value, `VAR VAR` refers to a variable. Every variable is assigned once at most. Of a
// segment's statements, at random places, two are cross-chunk references and two local ones (to a literal earlier in
// the segment; where there is none, the statement is a literal); the others are literals. A cross-chunk reference of
// the first segment, and a tenth of the later ones, names a variable that is nowhere assigned; the others name one of
// an earlier segment: from the third on, half of them a cross-chunk reference of the segment just before, so that there
// are chains, the rest any statement. A variable that cannot be followed to a literal resolves to UNK; no question asks
// for such a one. The question is `Q VAR`, its answer the literal that VAR resolves to, its hops the number of
// cross-chunk references on the way. Guessing a value is right once in kTrackingValues times.
//
// Vocabulary: 0-63 variables, 64-95 values, 96 UNK, 97 SEP, 98 Q, 99 unused.
//
// Thread-safety: one thread at a time. The same seed and calls give the same prompts everywhere.
#ifndef KDN_INTEGRATION_BLEND_MODELS_TRACKING_TASK_H_
#define KDN_INTEGRATION_BLEND_MODELS_TRACKING_TASK_H_

#include <array>
#include <cstdint>
#include <vector>

#include "storage/format/chunk_key.h"

namespace kdn::blend_models {

inline constexpr uint32_t kTrackingVariables = 64;
inline constexpr uint32_t kTrackingValues = 32;
inline constexpr Token kTrackingFirstValue = kTrackingVariables;
inline constexpr Token kTrackingUnknown = 96;
inline constexpr Token kTrackingSeparator = 97;
inline constexpr Token kTrackingQuestion = 98;
inline constexpr uint32_t kTrackingVocab = 100;

inline constexpr uint32_t kTrackingChunks = 4;
inline constexpr uint32_t kTrackingStatements = 14;  // in a chunk
inline constexpr uint32_t kTrackingCrossReferences = 2;
inline constexpr uint32_t kTrackingLocalReferences = 2;
inline constexpr uint32_t kTrackingMaxHops = kTrackingChunks - 1;

struct TrackingPrompt {
  std::vector<std::vector<Token>> segments;  // each 1 + 2 × kTrackingStatements tokens
  std::vector<Token> question;               // kTrackingQuestion and a variable
  Token answer = 0;                          // a value
  uint32_t hops = 0;                         // cross-chunk references between the question and the answer
};

class TrackingTask {
 public:
  explicit TrackingTask(uint64_t seed) : state_(seed) {}

  // A prompt whose question takes `hops` hops, at most kTrackingMaxHops; more are taken as that many.
  TrackingPrompt Draw(uint32_t hops);

 private:
  static constexpr uint32_t kTotal = kTrackingChunks * kTrackingStatements;

  struct Statement {
    Token variable = 0;
    Token argument = 0;
    Token resolved = 0;  // a value or kTrackingUnknown
    uint32_t hops = 0;   // where it resolves to a value
  };
  using Statements = std::array<Statement, kTotal>;

  uint64_t Next();
  // Below `bound`, each equally likely.
  uint32_t Below(uint32_t bound);
  template <typename Range>
  void Shuffle(Range& range);
  Statements DrawStatements();

  uint64_t state_;
};

}  // namespace kdn::blend_models

#endif  // KDN_INTEGRATION_BLEND_MODELS_TRACKING_TASK_H_
