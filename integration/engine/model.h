// Model: a Llama model's shape and weights, ready to run.
//
//   KDN_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, Model::Load("/models/tiny-llama"));
//   KDN_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Session::Create(model, {.capacity = 4096}));
//
// Thread-safety: immutable; shared by any number of sessions on any threads.
#ifndef KDN_INTEGRATION_ENGINE_MODEL_H_
#define KDN_INTEGRATION_ENGINE_MODEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "integration/engine/config.h"
#include "integration/engine/weights.h"

namespace kdn::engine {

class Model {
 public:
  // From a directory with config.json and model.safetensors (or shards and their index). Errors name the file and the
  // field or tensor.
  static absl::StatusOr<std::shared_ptr<const Model>> Load(const std::string& directory);
  static absl::StatusOr<std::shared_ptr<const Model>> Random(const RandomModelSpec& spec);

  Model(ModelConfig config, Weights weights);

  const ModelConfig& config() const { return config_; }
  const Weights& weights() const { return weights_; }
  const std::string& revision() const { return weights_.revision; }

 private:
  const ModelConfig config_;
  const Weights weights_;
};

}  // namespace kdn::engine

#endif  // KDN_INTEGRATION_ENGINE_MODEL_H_
