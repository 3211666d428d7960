#include "integration/engine/model.h"

#include <cblas.h>

#include "integration/engine/safetensors.h"
#include "storage/base/status.h"

namespace kdn::engine {

Model::Model(ModelConfig config, Weights weights) : config_(std::move(config)), weights_(std::move(weights)) {
  // Process-wide: every product runs on the thread that asks for it, and the engine's own workers share out products of
  // fixed shape. So results do not depend on how many threads there are.
  openblas_set_num_threads(1);
}

absl::StatusOr<std::shared_ptr<const Model>> Model::Load(const std::string& directory) {
  constexpr uint64_t kMaxConfigBytes = 1 << 20;
  KDN_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(directory + "/config.json", kMaxConfigBytes));
  absl::StatusOr<ModelConfig> config = ParseHfConfig(text);
  if (!config.ok()) return Annotate(config.status(), directory);
  KDN_ASSIGN_OR_RETURN(Weights weights, LoadWeights(directory, *config, text));
  return std::make_shared<const Model>(*std::move(config), std::move(weights));
}

absl::StatusOr<std::shared_ptr<const Model>> Model::Random(const RandomModelSpec& spec) {
  KDN_ASSIGN_OR_RETURN(Weights weights, RandomWeights(spec.config, spec.seed));
  return std::make_shared<const Model>(spec.config, std::move(weights));
}

}  // namespace kdn::engine
