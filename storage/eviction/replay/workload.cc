#include "storage/eviction/replay/workload.h"

#include <fmt/format.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <utility>

#include "storage/eviction/replay/simulation.h"

namespace kdn::replay {
namespace {

constexpr double kSeconds = 3600;
constexpr uint32_t kContextLimit = 65536;

struct Text {
  uint64_t id = 0;
  double tokens = 0;
};

std::vector<Text> NewTexts(Simulation& sim, size_t n, double median_tokens, double sigma) {
  std::vector<Text> texts;
  for (size_t i = 0; i < n; ++i) texts.push_back({sim.NewText(), sim.random().LogNormal(median_tokens, sigma)});
  return texts;
}

// Conversations: a system prompt, perhaps a document, then turns until the user leaves.
class Chat {
 public:
  explicit Chat(Simulation& sim)
      : sim_(sim),
        systems_(NewTexts(sim, 3, sim.Vary(1200), 0.5)),
        popularity_(systems_.size(), 1.5),
        question_(sim.Vary(350)),
        document_(sim.Vary(7000)),
        with_document_(sim.Vary(0.3)),
        answer_(sim.Vary(350)),
        think_(sim.Vary(80)),
        goes_on_(1 - sim.Vary(0.4)),
        goes_on_later_(1 - sim.Vary(0.18)) {}

  void Arrive() {
    const Text& system = systems_[popularity_.Draw(sim_.random())];
    Prompt prompt;
    prompt.Append(system.id, system.tokens);
    if (sim_.random().Chance(with_document_)) prompt.Append(sim_.NewText(), sim_.random().LogNormal(document_, 0.9));
    Turn(std::move(prompt), 0);
  }

 private:
  void Turn(Prompt prompt, int turn) {
    Random& random = sim_.random();
    prompt.Append(sim_.NewText(), random.LogNormal(question_, 1.2));
    const double answer = random.LogNormal(answer_, 0.8);
    sim_.Send(prompt, answer);
    if (prompt.tokens() > kContextLimit || !random.Chance(turn == 0 ? goes_on_ : goes_on_later_)) return;
    prompt.Append(sim_.NewText(), answer);
    const double delay = random.LogNormal(think_, 1.0) + answer / 50;
    sim_.After(delay, [this, prompt = std::move(prompt), turn] { Turn(prompt, turn + 1); });
  }

  Simulation& sim_;
  const std::vector<Text> systems_;
  const Zipf popularity_;
  const double question_, document_, with_document_, answer_, think_, goes_on_, goes_on_later_;
};

// Programs that call tools in a loop, each step with all of the context so far.
class Agent {
 public:
  explicit Agent(Simulation& sim)
      : sim_(sim),
        systems_(NewTexts(sim, 8, sim.Vary(6000), 0.5)),
        popularity_(systems_.size(), 0.8),
        task_(sim.Vary(1000)),
        observation_(sim.Vary(500)),
        tool_seconds_(sim.Vary(6)),
        approval_(sim.Vary(0.05)),
        approval_seconds_(sim.Vary(150)),
        ends_(sim.Vary(0.08)),
        spawns_(sim.Vary(0.02)) {}

  void Arrive() { Start(); }

 private:
  void Start() {
    const Text& system = systems_[popularity_.Draw(sim_.random())];
    Prompt prompt;
    prompt.Append(system.id, system.tokens);
    prompt.Append(sim_.NewText(), sim_.random().LogNormal(task_, 1.0));
    Step(std::move(prompt));
  }

  void Step(Prompt prompt) {
    Random& random = sim_.random();
    const double call = random.LogNormal(150, 0.6);
    sim_.Send(prompt, call);
    if (prompt.tokens() > kContextLimit || random.Chance(ends_)) return;
    if (random.Chance(spawns_)) Start();
    prompt.Append(sim_.NewText(), call);
    prompt.Append(sim_.NewText(), random.LogNormal(observation_, 1.1));
    const double delay =
        random.Chance(approval_) ? random.LogNormal(approval_seconds_, 1.0) : random.LogNormal(tool_seconds_, 0.8);
    sim_.After(delay, [this, prompt = std::move(prompt)] { Step(prompt); });
  }

  Simulation& sim_;
  const std::vector<Text> systems_;
  const Zipf popularity_;
  const double task_, observation_, tool_seconds_, approval_, approval_seconds_, ends_, spawns_;
};

// Questions over documents: the more popular a document, the more often it leads the prompt.
class Rag {
 public:
  explicit Rag(Simulation& sim)
      : sim_(sim),
        system_({sim.NewText(), sim.Vary(700)}),
        documents_(NewTexts(sim, static_cast<size_t>(sim.Vary(3000)), sim.Vary(4500), 0.7)),
        popularity_(documents_.size(), 0.9),
        order_(documents_.size()),
        second_(sim.Vary(0.4)),
        follow_up_(sim.Vary(0.2)),
        think_(sim.Vary(45)) {
    std::iota(order_.begin(), order_.end(), size_t{0});
  }

  void Arrive() {
    Prompt prompt;
    prompt.Append(system_.id, system_.tokens);
    AppendDocument(prompt);
    while (sim_.random().Chance(second_) && prompt.tokens() < kContextLimit) AppendDocument(prompt);
    Ask(std::move(prompt));
  }

  // A part of the documents changes places with others at random: news.
  void MovePopularity(double share) {
    const auto swaps = static_cast<size_t>(share * static_cast<double>(order_.size()));
    for (size_t i = 0; i < swaps; ++i) std::swap(order_[i], order_[sim_.random().Below(order_.size())]);
  }

 private:
  void AppendDocument(Prompt& prompt) {
    const Text& document = documents_[order_[popularity_.Draw(sim_.random())]];
    prompt.Append(document.id, document.tokens);
  }

  void Ask(Prompt prompt) {
    Random& random = sim_.random();
    prompt.Append(sim_.NewText(), random.LogNormal(60, 0.7));
    const double answer = random.LogNormal(250, 0.7);
    sim_.Send(prompt, answer);
    if (!random.Chance(follow_up_)) return;
    prompt.Append(sim_.NewText(), answer);
    sim_.After(random.LogNormal(think_, 1.0), [this, prompt = std::move(prompt)] { Ask(prompt); });
  }

  Simulation& sim_;
  const Text system_;
  const std::vector<Text> documents_;
  const Zipf popularity_;
  std::vector<size_t> order_;  // documents by popularity
  const double second_, follow_up_, think_;
};

// Jobs that read a collection once: one template, a document that comes once or for a few questions in a row.
class Batch {
 public:
  explicit Batch(Simulation& sim)
      : sim_(sim),
        templates_(NewTexts(sim, 4, sim.Vary(1500), 0.4)),
        document_(sim.Vary(5000)),
        again_(sim.Vary(0.12)),
        pause_(sim.Vary(8)) {}

  void Arrive() {
    const Text& instructions = templates_[static_cast<size_t>(sim_.now() / 900) % templates_.size()];
    Prompt prompt;
    prompt.Append(instructions.id, instructions.tokens);
    prompt.Append(sim_.NewText(), sim_.random().LogNormal(document_, 0.8));
    Ask(prompt);
  }

 private:
  void Ask(const Prompt& document) {
    Prompt prompt = document;
    prompt.Append(sim_.NewText(), sim_.random().LogNormal(80, 0.4));
    sim_.Send(prompt, 200);
    if (!sim_.random().Chance(again_)) return;
    sim_.After(sim_.random().Exponential(pause_), [this, document] { Ask(document); });
  }

  Simulation& sim_;
  const std::vector<Text> templates_;
  const double document_, again_, pause_;
};

template <typename Users>
void Run(Simulation& sim, Users& users, double per_second) {
  sim.Poisson(per_second, [&users] { users.Arrive(); });
}

}  // namespace

std::string_view WorkloadName(Workload workload) {
  switch (workload) {
    case Workload::kChat:
      return "chat";
    case Workload::kAgent:
      return "agent";
    case Workload::kRag:
      return "rag";
    case Workload::kBatch:
      return "batch";
    case Workload::kMix:
      return "mix";
    case Workload::kDrift:
      return "drift";
  }
  return "unknown";
}

Trace GenerateTrace(Workload workload, uint64_t seed) {
  Simulation sim(seed * 16 + static_cast<uint64_t>(workload));
  Chat chat(sim);
  Agent agent(sim);
  Rag rag(sim);
  Batch batch(sim);
  switch (workload) {
    case Workload::kChat:
      Run(sim, chat, sim.Vary(1.5));
      break;
    case Workload::kAgent:
      Run(sim, agent, sim.Vary(0.05));
      break;
    case Workload::kRag:
      Run(sim, rag, sim.Vary(2.5));
      break;
    case Workload::kBatch:
      Run(sim, batch, sim.Vary(3));
      Run(sim, chat, sim.Vary(0.4));
      break;
    case Workload::kMix:
      Run(sim, chat, sim.Vary(0.5));
      Run(sim, agent, sim.Vary(0.01));
      Run(sim, rag, sim.Vary(0.7));
      Run(sim, batch, sim.Vary(0.7));
      break;
    case Workload::kDrift: {
      Run(sim, rag, sim.Vary(1.5));
      Run(sim, chat, sim.Vary(0.2));
      const double news = sim.Vary(300);
      for (double at = news; at < kSeconds; at += news) sim.After(at, [&rag] { rag.MovePopularity(0.1); });
      sim.After(kSeconds / 2, [&sim, &chat] { Run(sim, chat, 0.8); });
      break;
    }
  }
  return sim.Run(kSeconds, fmt::format("{}-{}", WorkloadName(workload), seed));
}

}  // namespace kdn::replay
