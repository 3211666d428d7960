#include "integration/engine/space.h"

namespace kdn::engine {

KvSpace SpaceOf(const Model& model, const SessionOptions& options) {
  const ModelConfig& config = model.config();
  KvSpace space;
  space.model_id = config.model_id;
  space.weights_revision = model.revision();
  space.dtype = options.kv_dtype;
  space.chunk_tokens = options.chunk_tokens;
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    const LayerRun run{.count = 1,
                       .kv_heads = config.kv_heads,
                       .k_dim = config.head_dim,
                       .v_dim = config.head_dim,
                       .rope = config.HasRope(layer) ? config.rope : RopeSpec{}};
    if (!space.layers.empty() && space.layers.back().SameGeometry(run)) {
      ++space.layers.back().count;
    } else {
      space.layers.push_back(run);
    }
  }
  return space;
}

}  // namespace kdn::engine
