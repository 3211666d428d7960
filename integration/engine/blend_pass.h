// BlendPass: the reference engine's BlendModel. Runs some rows of a prompt through a Session's model, over its KV
// cache.
//
//   KDN_ASSIGN_OR_RETURN(auto pass, BlendPass::Create(*session));
//   KDN_ASSIGN_OR_RETURN(BlendReport report, Blend(*pass, {.tokens = prompt, .kv = ViewOf(session->kv())}, …));
//   KDN_RETURN_IF_ERROR(session->Append({session->Greedy()}));  // decode behind the prompt
//
// The rows' keys and values come and go through the cache, as BlendModel says; the pass reads it in Finish alone. After
// Finish of the last layer the session has the prompt's length, up to the last row, and the last row's logits.
//
// Memory: ForwardPass's, with blocks of kBlockRows. For a model 1024 wide (16 heads, 4 of keys, 2816 inside) that is
// some 12 KiB a row and 47 MiB.
//
// Thread-safety: one thread at a time, with the session.
#ifndef KDN_INTEGRATION_ENGINE_BLEND_PASS_H_
#define KDN_INTEGRATION_ENGINE_BLEND_PASS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "integration/engine/forward_pass.h"
#include "integration/engine/session.h"
#include "kdn-client/blend/blend_model.h"
#include "storage/format/kv_space.h"

namespace kdn::engine {

class BlendPass final : public kdn::BlendModel {
 public:
  static constexpr size_t kBlockRows = 1024;

  // `session` outlives the pass and stays where it is. ForwardPass::Create's errors.
  static absl::StatusOr<std::unique_ptr<BlendPass>> Create(Session& session);

  const KvSpace& space() const override { return space_; }
  uint32_t max_positions() const override;
  uint32_t vocab_size() const override;

  // INVALID_ARGUMENT: no rows, as many positions as tokens not, a token outside the vocabulary, positions that do not
  // ascend or that the model does not have. RESOURCE_EXHAUSTED: a position that the KV cache has no room for.
  absl::Status Begin(std::span<const Token> tokens, std::span<const uint32_t> positions) override;
  // Of these, FAILED_PRECONDITION when it is not their turn; INVALID_ARGUMENT for spans of another size, and rows that
  // there are not.
  absl::Status Project(uint32_t layer, std::span<float> k, std::span<float> v) override;
  absl::Status Keep(std::span<const uint32_t> kept) override;
  absl::Status Finish(uint32_t layer) override;

  // A Mark that is not before Project of a layer notes nothing; Rewind is then FAILED_PRECONDITION.
  void Mark() override;
  absl::Status Rewind() override;

  // The positions of the rows that there are now.
  std::span<const uint32_t> positions() const { return pass_.positions(); }

  // After the last layer: the logits of the rows at `positions`, [positions, vocab]. FAILED_PRECONDITION before;
  // INVALID_ARGUMENT: no row stands there.
  absl::StatusOr<std::vector<float>> Logits(std::span<const uint32_t> positions);

 private:
  enum class Turn { kBegin, kProject, kFinish, kLogits };

  BlendPass(Session& session, ForwardPass pass);
  // FAILED_PRECONDITION unless it is `turn`'s turn, at `layer`.
  absl::Status CheckTurn(const char* call, Turn turn, uint32_t layer) const;
  const ModelConfig& config() const { return session_.model().config(); }

  Session& session_;
  ForwardPass pass_;
  const KvSpace space_;
  Turn turn_ = Turn::kBegin;
  uint32_t layer_ = 0;                    // that is next, or at work
  std::optional<uint32_t> marked_layer_;  // that was next
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_BLEND_PASS_H_
