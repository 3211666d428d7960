// A node that greets as the bulk protocol has it and then lies, stalls or dies costs the engine a miss with a reason,
// within the deadline, and nothing else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kdn-client/cancellation.h"
#include "kdn-client/chunk_encoder.h"
#include "kdn-client/client.h"
#include "kdn-client/overload_pause.h"
#include "kdn-client/transport.h"
#include "storage/base/clock.h"
#include "storage/base/mutex.h"
#include "storage/base/shared_arena.h"
#include "storage/base/socket_io.h"
#include "storage/base/status.h"
#include "tests/kdn-client/engine_memory.h"
#include "tests/proto/bulk_wire.h"

namespace kdn {
namespace {

using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using wire::BulkType;

constexpr absl::Duration kPlenty = absl::Seconds(20);
constexpr uint32_t kTokens = 3 * kChunkTokens;

// Serves connections on a port, and if so wished on a local socket, as the test says: one thread each.
class FakeNode {
 public:
  using Script = std::function<void(BulkWire& wire, bool local)>;

  explicit FakeNode(Script script, uint16_t port = 0) : script_(std::move(script)) {
    tcp_ = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    constexpr int kOn = 1;
    setsockopt(tcp_.get(), SOL_SOCKET, SO_REUSEADDR, &kOn, sizeof kOn);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(tcp_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(tcp_.get(), 100), 0);
    socklen_t size = sizeof address;
    getsockname(tcp_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);

    local_ = UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    std::random_device random;
    local_name_ = "kdn-test-" + std::to_string(getpid()) + "-" + std::to_string(random());
    sockaddr_un local = {};
    local.sun_family = AF_UNIX;
    local_name_.copy(local.sun_path + 1, sizeof local.sun_path - 1);
    const auto local_size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + local_name_.size());
    EXPECT_EQ(bind(local_.get(), reinterpret_cast<const sockaddr*>(&local), local_size), 0);
    EXPECT_EQ(listen(local_.get(), 100), 0);
    acceptors_.emplace_back([this] { Accept(tcp_.get(), false); });
    acceptors_.emplace_back([this] { Accept(local_.get(), true); });
  }

  ~FakeNode() {
    shutdown(tcp_.get(), SHUT_RDWR);
    shutdown(local_.get(), SHUT_RDWR);
    for (std::thread& thread : acceptors_) thread.join();
    std::vector<std::thread> threads;
    {
      MutexLock lock(mu_);
      for (const std::shared_ptr<BulkWire>& wire : wires_) wire->Shutdown();
      threads.swap(threads_);
    }
    for (std::thread& thread : threads) thread.join();
  }

  uint16_t port() const { return port_; }
  const std::string& local_name() const { return local_name_; }
  size_t connections() const {
    MutexLock lock(mu_);
    return wires_.size();
  }
  // For connections that come from now on.
  void Serve(Script script) {
    MutexLock lock(mu_);
    script_ = std::move(script);
  }

 private:
  void Accept(int listener, bool local) {
    for (;;) {
      UniqueFd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd.valid()) return;
      const auto wire = std::make_shared<BulkWire>(std::move(fd));
      MutexLock lock(mu_);
      wires_.push_back(wire);
      threads_.emplace_back([wire, local, script = script_] {
        script(*wire, local);
        wire->Shutdown();
      });
    }
  }

  UniqueFd tcp_;
  UniqueFd local_;
  uint16_t port_ = 0;
  std::string local_name_;
  mutable Mutex mu_;
  Script script_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<BulkWire>> wires_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> acceptors_;
};

// Reads a client's preface and hello. False: this is another protocol.
bool ReadGreeting(BulkWire& wire) {
  std::string preface(wire::kBulkPreface.size(), '\0');
  if (!wire.ReadExactly(preface.data(), preface.size()) || preface != wire::kBulkPreface) return false;
  const std::optional<BulkWire::Frame> hello = wire.Read();
  return hello.has_value() && hello->type == BulkType::kHello;
}

v1::BulkWelcome Welcome() {
  v1::BulkWelcome welcome;
  welcome.set_version(wire::kBulkVersion);
  return welcome;
}

bool Greet(BulkWire& wire) { return ReadGreeting(wire) && wire.SendFrame(BulkType::kWelcome, Welcome()); }

std::optional<v1::BulkCall> ReadCall(BulkWire& wire) {
  const std::optional<BulkWire::Frame> frame = wire.Read();
  if (!frame.has_value() || frame->type != BulkType::kCall) return std::nullopt;
  return frame->As<v1::BulkCall>();
}

bool SendAnswer(BulkWire& wire, absl::StatusCode code = absl::StatusCode::kOk, const std::string& message = {}) {
  v1::BulkAnswer answer;
  answer.mutable_status()->set_code(static_cast<int>(code));
  answer.mutable_status()->set_message(message);
  return wire.SendFrame(BulkType::kAnswer, answer);
}

// Waits until the peer closes the connection.
void AwaitEnd(BulkWire& wire) {
  char byte;
  while (wire.ReadExactly(&byte, 1)) {
  }
}

// One BulkSlabs with its data.
struct Batch {
  v1::BulkSlabs slabs;
  std::string data;

  void Miss(uint32_t chunk, int reason) {
    v1::BulkItem& item = *slabs.add_items();
    item.set_chunk(chunk);
    item.mutable_result()->set_miss(static_cast<v1::MissReason>(reason));
  }
  void Result(uint32_t as_chunk, const Chunk& chunk) {
    v1::BulkItem& item = *slabs.add_items();
    item.set_chunk(as_chunk);
    item.mutable_result()->set_tier(v1::TIER_MEMORY);
    item.mutable_result()->set_manifest(EncodeManifest(*chunk.manifest).value());
  }
  v1::BulkItem& Bytes(uint32_t as_chunk, uint32_t slab, std::string_view bytes) {
    v1::BulkItem& item = *slabs.add_items();
    item.set_chunk(as_chunk);
    item.set_slab(slab);
    item.set_bytes(bytes.size());
    data += bytes;
    return item;
  }
  void Slab(uint32_t as_chunk, const Chunk& chunk, uint32_t slab) {
    Bytes(as_chunk, slab, AsStringView(chunk.slabs[slab]));
  }
  void Whole(uint32_t as_chunk, const Chunk& chunk) {
    Result(as_chunk, chunk);
    for (uint32_t slab = 0; slab < chunk.slabs.size(); ++slab) Slab(as_chunk, chunk, slab);
  }
  bool Send(BulkWire& wire) const { return wire.SendFrame(BulkType::kSlabs, slabs, data); }
};

class HostileBulkNodeTest : public testing::TestWithParam<const char*> {
 protected:
  using OnCall = std::function<bool(BulkWire&, const v1::BulkCall&)>;

  void SetUp() override {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "gRPC, to which these clients may turn, is not instrumented";
#endif
    const KvView view = KvView::Over(space_, computed_.view(), {}).value();
    client_ = Connect({.shared_memory = false});
    for (const ChunkRef& ref : refs_) {
      chunks_.push_back(EncodeChunk(client_->space_id(), space_, ref, view, **FindCodec(GetParam())).value());
    }
  }

  std::shared_ptr<Transport> TransportTo(const RemoteOptions& options) const {
    return MakeRemoteTransport("127.0.0.1:" + std::to_string(node_->port()), options);
  }
  std::unique_ptr<Client> Connect(const RemoteOptions& options) const {
    return Client::Create(space_, TransportTo(options)).value();
  }

  // Greets, and answers each call so, for as long as `on_call` says.
  static FakeNode::Script Answering(OnCall on_call) {
    return [on_call = std::move(on_call)](BulkWire& wire, bool) {
      if (!Greet(wire)) return;
      for (;;) {
        const std::optional<v1::BulkCall> call = ReadCall(wire);
        if (!call.has_value() || !on_call(wire, *call)) return;
      }
    };
  }
  // As a node should.
  OnCall Honest() const {
    return [this](BulkWire& wire, const v1::BulkCall& call) {
      if (call.has_lookup()) {
        v1::BulkAnswer answer;
        for (const Chunk& chunk : chunks_) {
          (void)chunk;
          answer.mutable_lookup()->add_chunks()->set_tier(v1::TIER_MEMORY);
        }
        return wire.SendFrame(BulkType::kAnswer, answer);
      }
      Batch batch;
      for (uint32_t i = 0; i < chunks_.size(); ++i) batch.Whole(i, chunks_[i]);
      return batch.Send(wire) && SendAnswer(wire);
    };
  }
  // Chunk 0 as it should be, then `lie`, then the end of the call and the next one.
  void ServeAfterFirstChunk(std::function<void(BulkWire&)> lie) {
    node_->Serve(Answering([this, lie = std::move(lie)](BulkWire& wire, const v1::BulkCall&) {
      Batch first;
      first.Whole(0, chunks_[0]);
      first.Send(wire);
      lie(wire);
      return SendAnswer(wire);
    }));
  }

  // Fetches all three chunks and checks that what is a hit has its bytes.
  FetchReport Fetch(absl::Duration deadline = kPlenty) { return FetchBy(*client_, deadline); }
  FetchReport FetchBy(Client& client, absl::Duration deadline = kPlenty) {
    EngineMemory fetched(space_, kTokens);
    FetchOptions options;
    options.deadline = deadline;
    const absl::StatusOr<FetchReport> report = client.Fetch(refs_, fetched.view(), options);
    EXPECT_TRUE(report.ok()) << report.status();
    for (size_t i = 0; i < refs_.size(); ++i) {
      if (report->chunks[i].miss.reason != MissReason::kNone) continue;
      for (size_t layer = 0; layer < 4; ++layer) {
        EXPECT_EQ(fetched.Rows(layer, refs_[i].first_token, kChunkTokens),
                  computed_.Rows(layer, refs_[i].first_token, kChunkTokens))
            << "chunk " << i << ", layer " << layer;
      }
    }
    return *report;
  }

  const KvSpace space_ = TinySpace();
  const std::vector<ChunkRef> refs_ = Chain(space_, kTokens);
  const EngineMemory computed_ = EngineMemory::WithKv(space_, kTokens);
  std::vector<Chunk> chunks_;  // used by scripts: they end before it
  std::unique_ptr<FakeNode> node_ = std::make_unique<FakeNode>([](BulkWire&, bool) {});
  std::unique_ptr<Client> client_;
};

TEST_P(HostileBulkNodeTest, AWellBehavedScriptIsAHit) {
  node_->Serve(Answering(Honest()));
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  EXPECT_EQ(node_->connections(), 1u) << "it is kept";
  node_->Serve(Answering([this](BulkWire& wire, const v1::BulkCall&) {
    for (const uint32_t chunk : {2u, 0u, 1u}) {  // in any order, in any number of frames
      Batch result;
      result.Result(chunk, chunks_[chunk]);
      result.Send(wire);
      for (uint32_t slab = 0; slab < chunks_[chunk].slabs.size(); ++slab) {
        Batch batch;
        batch.Slab(chunk, chunks_[chunk], slab);
        batch.Send(wire);
      }
    }
    return SendAnswer(wire);
  }));
  EXPECT_THAT(Reasons(FetchBy(*Connect({.shared_memory = false}))), Each(MissReason::kNone));
}

TEST_P(HostileBulkNodeTest, FramesThatMakeNoSenseEndTheCallAndNotTheHits) {
  const std::string junk(AsStringView(chunks_[1].slabs[0]).size(), '\x5a');
  struct Case {
    const char* what;
    std::function<void(BulkWire&)> send;
    // Leaves an answer that may come while the connection is in the next call already: that call then has no hits.
    bool answers_twice = false;
  };
  const auto batch = [](const std::function<void(Batch&)>& fill) {
    return [fill](BulkWire& wire) {
      Batch b;
      fill(b);
      b.Send(wire);
    };
  };
  const std::vector<Case> cases = {
      {"a slab before its result", batch([&](Batch& b) { b.Slab(1, chunks_[1], 0); })},
      {"a slab out of order", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Slab(1, chunks_[1], 1);
       })},
      {"a slab twice", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Slab(1, chunks_[1], 0);
         b.Bytes(1, 0, junk);
       })},
      {"a slab twice, in two frames",
       [&](BulkWire& wire) {
         Batch b;
         b.Result(1, chunks_[1]);
         b.Slab(1, chunks_[1], 0);
         b.Send(wire);
         Batch again;
         again.Bytes(1, 0, junk);
         again.Send(wire);
       }},
      {"a slab of a chunk that is whole",
       batch([&](Batch& b) { b.Bytes(0, 0, std::string(chunks_[0].slabs[0].size(), 'x')); })},
      {"a slab behind the last",
       batch([&](Batch& b) { b.Bytes(0, static_cast<uint32_t>(chunks_[0].slabs.size()), "x"); })},
      {"a slab that no chunk has", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Bytes(1, UINT32_MAX, junk);
       })},
      {"a slab that is too short", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Bytes(1, 0, std::string_view(junk).substr(1));
       })},
      {"a slab that is too long", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Bytes(1, 0, junk + "x");
       })},
      {"an empty slab", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Bytes(1, 0, "");
       })},
      {"a result for a chunk that was not asked for", batch([&](Batch& b) { b.Result(3, chunks_[1]); })},
      {"a slab of a chunk that was not asked for", batch([&](Batch& b) { b.Bytes(UINT32_MAX, 0, junk); })},
      {"more data than items", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Slab(1, chunks_[1], 0);
         b.data += "x";
       })},
      {"fewer data than items", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Slab(1, chunks_[1], 0);
         b.data.pop_back();
       })},
      {"data without items", [](BulkWire& wire) { wire.SendFrame(BulkType::kSlabs, v1::BulkSlabs(), "data"); }},
      {"shared slabs without shared memory", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         v1::BulkItem& item = b.Bytes(1, 0, "");
         item.set_bytes(junk.size());
         item.set_shared(true);
       })},
      {"a message that is none", [](BulkWire& wire) { wire.SendRaw(BulkType::kSlabs, "\xff\xff\xff"); }},
      {"an answer that is none", [](BulkWire& wire) { wire.SendRaw(BulkType::kAnswer, "\xff\xff\xff"); }},
      {"an answer with data", [](BulkWire& wire) { wire.SendFrame(BulkType::kAnswer, v1::BulkAnswer(), "data"); }},
      {"an answer in the middle", [](BulkWire& wire) { SendAnswer(wire); }, /*answers_twice=*/true},
      {"a second welcome", [](BulkWire& wire) { wire.SendFrame(BulkType::kWelcome, Welcome()); }},
      {"a client's frame", [](BulkWire& wire) { wire.SendFrame(BulkType::kCall, v1::BulkCall()); }},
      {"a frame of no type", [](BulkWire& wire) { wire.SendHeader(static_cast<BulkType>(0), 0, 0); }},
      {"an enormous message", [](BulkWire& wire) { wire.SendHeader(BulkType::kSlabs, UINT32_MAX, 0); }},
      {"a message over the limit",
       [](BulkWire& wire) { wire.SendHeader(BulkType::kSlabs, wire::kMaxBulkMessageBytes + 1, 0); }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    ServeAfterFirstChunk(c.send);
    client_ = Connect({.shared_memory = false});
    const FetchReport report = Fetch();
    EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kProtocol, MissReason::kProtocol));
    EXPECT_LT(report.elapsed, kPlenty / 4);
    // Nothing of it is left for the next call.
    node_->Serve(Answering(Honest()));
    if (c.answers_twice) client_ = Connect({.shared_memory = false});
    EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  }
  node_.reset();  // its scripts use what is above
}

TEST_P(HostileBulkNodeTest, SizesThatOnlyFitWhenTheyWrapAroundAreABreach) {
  ServeAfterFirstChunk([](BulkWire& wire) {
    Batch batch;
    batch.Miss(1, v1::MISS_REASON_NOT_FOUND);  // whose slabs are of any size
    batch.Bytes(1, 0, "").set_bytes(UINT64_MAX);
    batch.Bytes(1, 0, "").set_bytes(5);
    batch.data = "four";
    batch.Send(wire);
  });
  EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, MissReason::kNotFound, MissReason::kProtocol));
}

TEST_P(HostileBulkNodeTest, AChunkThatIsWholeIsNotOverwrittenByALaterLie) {
  Chunk lie = chunks_[0];
  for (SharedBuffer& slab : lie.slabs) slab = SharedBuffer::CopyOf(AsBytes(std::string(slab.size(), '\x5a')));
  node_->Serve(Answering([this, &lie](BulkWire& wire, const v1::BulkCall&) {
    for (int i = 0; i < 2; ++i) {  // in one frame, then in another
      Batch batch;
      if (i == 0) batch.Whole(0, chunks_[0]);
      batch.Whole(0, lie);
      batch.Miss(0, v1::MISS_REASON_NOT_FOUND);
      for (uint32_t slab = 0; slab < lie.slabs.size(); ++slab) batch.Slab(0, lie, slab);
      batch.Send(wire);
    }
    Batch rest;
    rest.Whole(1, chunks_[1]);
    rest.Whole(2, chunks_[2]);
    rest.Send(wire);
    return SendAnswer(wire);
  }));
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  node_.reset();  // its scripts use what is above
}

TEST_P(HostileBulkNodeTest, AChunkThatIsAnnouncedTwiceBeforeItIsWholeIsAMiss) {
  node_->Serve(Answering([this](BulkWire& wire, const v1::BulkCall&) {
    Batch batch;
    batch.Result(0, chunks_[0]);
    batch.Slab(0, chunks_[0], 0);
    batch.Whole(0, chunks_[0]);
    batch.Whole(1, chunks_[1]);
    batch.Whole(2, chunks_[2]);
    batch.Send(wire);
    return SendAnswer(wire);
  }));
  EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kProtocol, MissReason::kNone, MissReason::kNone));
}

TEST_P(HostileBulkNodeTest, FlippedBytesAreCorruptAndTheRestIsNot) {
  for (uint32_t slab = 0; slab < chunks_[1].slabs.size(); ++slab) {
    Chunk flipped = chunks_[1];
    std::string bytes(AsStringView(flipped.slabs[slab]));
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
    flipped.slabs[slab] = SharedBuffer::CopyOf(AsBytes(bytes));
    node_->Serve(Answering([this, flipped](BulkWire& wire, const v1::BulkCall&) {
      Batch batch;
      batch.Whole(0, chunks_[0]);
      batch.Whole(1, flipped);
      batch.Whole(2, chunks_[2]);
      batch.Send(wire);
      return SendAnswer(wire);
    }));
    client_ = Connect({.shared_memory = false});
    EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, MissReason::kCorrupt, MissReason::kNone)) << slab;
  }
}

TEST_P(HostileBulkNodeTest, ManifestsThatLieAreMissesOfTheirChunkAlone) {
  Batch torn;
  torn.Whole(1, chunks_[1]);
  torn.slabs.mutable_items(0)->mutable_result()->mutable_manifest()->pop_back();
  Batch empty;
  empty.Whole(1, chunks_[1]);
  empty.slabs.mutable_items(0)->mutable_result()->clear_manifest();
  Batch another;
  another.Whole(1, chunks_[2]);
  Batch missing;
  missing.Miss(1, v1::MISS_REASON_NOT_FOUND);
  Batch missing_with_slabs;
  missing_with_slabs.Miss(1, v1::MISS_REASON_NOT_FOUND);
  missing_with_slabs.Bytes(1, 9, "whatever");
  missing_with_slabs.Bytes(1, 0, std::string(1 << 20, 'x'));
  Batch unknown;
  unknown.Miss(1, 1000);
  Batch empty_slabs_of_a_miss;
  empty_slabs_of_a_miss.Miss(1, v1::MISS_REASON_NOT_FOUND);
  empty_slabs_of_a_miss.Bytes(1, 0, "");
  empty_slabs_of_a_miss.Bytes(1, 0, "");
  const std::vector<std::pair<Batch, MissReason>> cases = {
      {torn, MissReason::kCorrupt},
      {empty, MissReason::kCorrupt},
      {another, MissReason::kProtocol},
      {missing, MissReason::kNotFound},
      {unknown, MissReason::kProtocol},
      {missing_with_slabs, MissReason::kNotFound},
      {empty_slabs_of_a_miss, MissReason::kNotFound},
  };
  for (const auto& [batch, reason] : cases) {
    ServeAfterFirstChunk([&, b = batch](BulkWire& wire) {
      b.Send(wire);
      Batch rest;
      rest.Whole(2, chunks_[2]);
      rest.Send(wire);
    });
    client_ = Connect({.shared_memory = false});
    EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, reason, MissReason::kNone)) << MissReasonName(reason);
  }
}

TEST_P(HostileBulkNodeTest, ANodeThatDiesMidwayLeavesTheHits) {
  Batch cut;
  cut.Result(1, chunks_[1]);
  cut.Slab(1, chunks_[1], 0);
  const std::string frame = wire::EncodeBulkFrame(BulkType::kSlabs, cut.slabs, cut.data.size()) + cut.data;
  for (const size_t at : {size_t{0}, size_t{7}, wire::kBulkHeaderBytes, wire::kBulkHeaderBytes + 3,
                          frame.size() - cut.data.size(), frame.size() - 1, frame.size()}) {
    node_->Serve(Answering([&, at](BulkWire& wire, const v1::BulkCall&) {
      Batch first;
      first.Whole(0, chunks_[0]);
      first.Send(wire);
      wire.Send(std::string_view(frame).substr(0, at));
      return false;
    }));
    client_ = Connect({.shared_memory = false});
    const FetchReport report = Fetch();
    EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kUnreachable, MissReason::kUnreachable))
        << at;
    EXPECT_THAT(report.chunks[1].miss.detail, HasSubstr("node 127.0.0.1:"));
  }
  node_.reset();  // its scripts use what is above
}

TEST_P(HostileBulkNodeTest, ANodeThatStallsMidwayCostsNoMoreThanTheDeadline) {
  Batch cut;
  cut.Result(1, chunks_[1]);
  cut.Slab(1, chunks_[1], 0);
  const std::string frame = wire::EncodeBulkFrame(BulkType::kSlabs, cut.slabs, cut.data.size()) + cut.data;
  for (const size_t at : {size_t{0}, size_t{7}, wire::kBulkHeaderBytes + 3, frame.size() - 1, frame.size()}) {
    node_->Serve(Answering([&, at](BulkWire& wire, const v1::BulkCall&) {
      Batch first;
      first.Whole(0, chunks_[0]);
      first.Send(wire);
      wire.Send(std::string_view(frame).substr(0, at));
      AwaitEnd(wire);
      return false;
    }));
    client_ = Connect({.shared_memory = false});
    const FetchReport report = Fetch(absl::Milliseconds(300));
    EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kDeadline, MissReason::kDeadline)) << at;
    EXPECT_LT(report.elapsed, absl::Seconds(10));
  }
  node_.reset();  // its scripts use what is above
}

TEST_P(HostileBulkNodeTest, AnErrorMidwayIsTheReasonOfTheRest) {
  ServeAfterFirstChunk([](BulkWire& wire) {
    SendAnswer(wire, absl::StatusCode::kResourceExhausted, "too much at once");
    AwaitEnd(wire);
  });
  const FetchReport report = Fetch();
  EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kRefused, MissReason::kRefused));
  EXPECT_THAT(report.chunks[1].miss.detail, HasSubstr("too much at once"));
}

// Neither frames nor data without end keep a client beyond its deadline.
TEST_P(HostileBulkNodeTest, AFloodEndsWithTheDeadline) {
  Batch misses;
  misses.Miss(1, v1::MISS_REASON_NOT_FOUND);
  const std::string frame = wire::EncodeBulkFrame(BulkType::kSlabs, misses.slabs);
  std::string frames;
  while (frames.size() < (1 << 20)) frames += frame;
  Batch endless = misses;
  endless.Bytes(1, 0, "").set_bytes(uint64_t{1} << 60);
  const std::string junk(1 << 20, 'x');
  const std::vector<std::function<void(BulkWire&)>> floods = {
      [&](BulkWire& wire) {
        while (wire.Send(frames)) {
        }
      },
      [&](BulkWire& wire) {
        wire.Send(wire::EncodeBulkFrame(BulkType::kSlabs, endless.slabs, uint64_t{1} << 60));
        while (wire.Send(junk)) {
        }
      },
  };
  for (const auto& flood : floods) {
    ServeAfterFirstChunk(flood);
    client_ = Connect({.shared_memory = false});
    const FetchReport report = Fetch(absl::Milliseconds(500));
    EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kNotFound, MissReason::kDeadline));
    EXPECT_LT(report.elapsed, absl::Seconds(5));
  }
  node_.reset();  // its scripts use what is above
}

TEST_P(HostileBulkNodeTest, WhatIsSaidBehindAnAnswerIsNotForTheNextCall) {
  node_->Serve(Answering([this](BulkWire& wire, const v1::BulkCall& call) {
    if (!call.has_fetch()) return false;
    Batch batch;
    for (uint32_t i = 0; i < chunks_.size(); ++i) batch.Whole(i, chunks_[i]);
    Batch extra;
    extra.Miss(0, v1::MISS_REASON_NOT_FOUND);
    const std::string answers = wire::EncodeBulkFrame(BulkType::kSlabs, batch.slabs, batch.data.size()) + batch.data +
                                wire::EncodeBulkFrame(BulkType::kAnswer, v1::BulkAnswer()) +
                                wire::EncodeBulkFrame(BulkType::kSlabs, extra.slabs) +
                                wire::EncodeBulkFrame(BulkType::kAnswer, v1::BulkAnswer());
    return wire.Send(answers);
  }));
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone)) << i;
  EXPECT_EQ(node_->connections(), 3u) << "such a connection is not used again";
}

// An answer that comes too late must not be taken for that of the next call.
TEST_P(HostileBulkNodeTest, AConnectionWhoseAnswerIsOverdueIsNotUsedAgain) {
  std::promise<void> ended_first;
  const std::shared_future<void> first_is_over = ended_first.get_future().share();
  node_->Serve(
      Answering([honest = Honest(), first_is_over, calls = 0](BulkWire& wire, const v1::BulkCall& call) mutable {
        if (++calls == 1) return honest(wire, call);
        first_is_over.wait();
        SendAnswer(wire, absl::StatusCode::kNotFound, "the answer of the second call");
        AwaitEnd(wire);
        return false;
      }));
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  EXPECT_THAT(Reasons(Fetch(absl::Milliseconds(200))), Each(MissReason::kDeadline));
  node_->Serve(Answering([honest = Honest()](BulkWire& wire, const v1::BulkCall& call) { return honest(wire, call); }));
  std::thread late([&] { ended_first.set_value(); });
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  late.join();
  EXPECT_EQ(node_->connections(), 2u);
}

TEST_P(HostileBulkNodeTest, ALostConnectionThatWasKeptIsReplacedSilently) {
  // Closed in between, seen before the next call or not; then in the moment in which a call comes.
  for (const bool reads_the_call : {false, true}) {
    node_->Serve(
        Answering([honest = Honest(), reads_the_call, calls = 0](BulkWire& wire, const v1::BulkCall& call) mutable {
          if (++calls > 1) return false;
          return honest(wire, call) && reads_the_call;
        }));
    client_ = Connect({.shared_memory = false});
    const size_t before = node_->connections();
    for (int i = 0; i < 4; ++i) EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone)) << i << reads_the_call;
    EXPECT_EQ(node_->connections(), before + 4);
  }
}

TEST_P(HostileBulkNodeTest, ANodeThatAlwaysDiesIsAskedTwiceAtMost) {
  node_->Serve(Answering([honest = Honest()](BulkWire& wire, const v1::BulkCall& call) { return honest(wire, call); }));
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  // The kept connection ends with its node, and each new one once it has the call.
  const uint16_t port = node_->port();
  node_.reset();
  node_ = std::make_unique<FakeNode>(Answering([](BulkWire&, const v1::BulkCall&) { return false; }), port);
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kUnreachable));
  EXPECT_LE(node_->connections(), 2u);
}

TEST_P(HostileBulkNodeTest, ANodeThatWasStartedAnewIsFoundByTheNextCall) {
  node_->Serve(Answering(Honest()));
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  const uint16_t port = node_->port();
  node_.reset();
  node_ = std::make_unique<FakeNode>(Answering(Honest()), port);
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
}

TEST_P(HostileBulkNodeTest, WhoDoesNotGreetIsAskedByGrpcWhichFailsToo) {
  const std::vector<FakeNode::Script> scripts = {
      [](BulkWire& wire, bool) {
        if (ReadGreeting(wire)) wire.Send("HTTP/1.1 400 Bad Request\r\n\r\n");
      },
      [](BulkWire& wire, bool) { ReadGreeting(wire); },
      [](BulkWire& wire, bool) {
        if (!ReadGreeting(wire)) return;
        v1::BulkWelcome welcome = Welcome();
        welcome.set_version(2);
        wire.SendFrame(BulkType::kWelcome, welcome);
      },
      [](BulkWire& wire, bool) {
        if (ReadGreeting(wire)) wire.SendFrame(BulkType::kWelcome, Welcome(), "data");
      },
      [](BulkWire& wire, bool) {
        if (ReadGreeting(wire)) SendAnswer(wire);
      },
  };
  for (const FakeNode::Script& script : scripts) {
    node_->Serve(script);
    client_ = Connect({.shared_memory = false});
    const FetchReport report = Fetch(absl::Seconds(3));
    EXPECT_THAT(Reasons(report), Each(AnyOf(MissReason::kUnreachable, MissReason::kDeadline)));
    EXPECT_LT(report.elapsed, absl::Seconds(10));
  }
}

TEST_P(HostileBulkNodeTest, WhoNeverGreetsCostsNoMoreThanTheDeadline) {
  node_->Serve([](BulkWire& wire, bool) { AwaitEnd(wire); });
  const FetchReport report = Fetch(absl::Milliseconds(300));
  EXPECT_THAT(Reasons(report), Each(MissReason::kDeadline));
  EXPECT_LT(report.elapsed, absl::Seconds(10));
}

TEST_P(HostileBulkNodeTest, StoresAndLookupsThatAreAnsweredWronglyFail) {
  const std::vector<Token> tokens = SomeTokens(kTokens);
  const auto lookup = [&] { return client_->LookupPrefix(tokens, {.deadline = kPlenty}); };
  const auto store = [&] {
    return client_->Store(refs_, computed_.view(), {.deadline = kPlenty, .codec = GetParam()}).value();
  };
  node_->Serve(Answering(Honest()));
  EXPECT_EQ(lookup().hits, 3u);

  // For another number of chunks, a torn message, slabs, or nothing.
  const std::vector<OnCall> answers = {
      [](BulkWire& wire, const v1::BulkCall&) {
        v1::BulkAnswer answer;
        answer.mutable_lookup()->add_chunks();
        answer.mutable_store()->add_chunks();
        return wire.SendFrame(BulkType::kAnswer, answer);
      },
      [](BulkWire& wire, const v1::BulkCall&) { return wire.SendRaw(BulkType::kAnswer, "\xff\xff"); },
      [](BulkWire& wire, const v1::BulkCall&) { return wire.SendFrame(BulkType::kSlabs, v1::BulkSlabs()); },
      [](BulkWire&, const v1::BulkCall&) { return false; },
  };
  for (size_t i = 0; i < answers.size(); ++i) {
    SCOPED_TRACE(i);
    node_->Serve(Answering(answers[i]));
    client_ = Connect({.shared_memory = false});
    EXPECT_EQ(lookup().hits, 0u);
    EXPECT_THAT(lookup().stopped_by.reason, i < 3 ? MissReason::kProtocol : MissReason::kUnreachable);
    for (const absl::Status& chunk : store().chunks) EXPECT_FALSE(chunk.ok());
  }
}

// Takes all there is.
class OpenSink final : public SlabSink {
 public:
  bool OnChunk(size_t, const ManifestPtr&, TierKind) override { return true; }
  void OnPart(size_t, uint32_t, uint64_t, ByteSpan) override {}
  void OnMiss(size_t, const Miss&) override {}
};

TEST_P(HostileBulkNodeTest, ACancelledFetchReturnsSoon) {
  struct Case {
    const char* what;
    std::function<void(BulkWire&)> before_the_stall;
  };
  Batch first;
  first.Whole(0, chunks_[0]);
  const std::vector<Case> cases = {
      {"before the greeting", [](BulkWire&) {}},
      {"before any frame",
       [](BulkWire& wire) {
         if (Greet(wire)) ReadCall(wire);
       }},
      {"between frames",
       [&](BulkWire& wire) {
         if (Greet(wire) && ReadCall(wire).has_value()) first.Send(wire);
       }},
      {"within a slab",
       [&](BulkWire& wire) {
         if (!Greet(wire) || !ReadCall(wire).has_value()) return;
         wire.Send(wire::EncodeBulkFrame(BulkType::kSlabs, first.slabs, first.data.size()));
         wire.Send(std::string_view(first.data).substr(0, first.data.size() - 1));
       }},
  };
  std::vector<ChunkKey> keys;
  for (const ChunkRef& ref : refs_) keys.push_back(ref.key);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    const auto stalling = std::make_shared<std::promise<void>>();
    node_->Serve([stalling, before_the_stall = c.before_the_stall](BulkWire& wire, bool) {
      before_the_stall(wire);
      stalling->set_value();
      AwaitEnd(wire);
    });
    const std::shared_ptr<Transport> transport = TransportTo({.shared_memory = false});
    Cancellation cancel;
    std::thread canceller([&cancel, stalling] {
      stalling->get_future().wait();
      cancel.Cancel();
    });
    OpenSink sink;
    FetchQuery query = {.space = client_->space_id(), .keys = keys, .cancel = &cancel};
    const absl::Time begin = absl::Now();
    const absl::Status ended = transport->Fetch(query, begin + absl::Seconds(10), sink);
    EXPECT_TRUE(absl::IsCancelled(ended)) << ended;
    EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
    canceller.join();
  }
  // One that was cancelled before does not begin.
  Cancellation cancelled;
  cancelled.Cancel();
  node_->Serve(Answering(Honest()));
  OpenSink sink;
  FetchQuery query = {.space = client_->space_id(), .keys = keys, .cancel = &cancelled};
  EXPECT_TRUE(
      absl::IsCancelled(TransportTo({.shared_memory = false})->Fetch(query, absl::Now() + absl::Seconds(10), sink)));
  node_.reset();  // its scripts use what is above
}

// A fake node that also lends shared memory.
class HostileSharedNodeTest : public HostileBulkNodeTest {
 protected:
  void SetUp() override {
    HostileBulkNodeTest::SetUp();
    if (IsSkipped()) return;
    client_ = Connect({});
  }

  // Names the local socket to who comes by TCP, and passes `memory` to who comes by that.
  FakeNode::Script Lending(int memory, uint64_t bytes, const OnCall& on_local_call, const OnCall& on_call) {
    v1::BulkWelcome welcome = Welcome();
    std::ifstream("/proc/sys/kernel/random/boot_id") >> *welcome.mutable_machine();
    welcome.set_local_socket(node_->local_name());
    return [=](BulkWire& wire, bool local) mutable {
      if (!ReadGreeting(wire)) return;
      if (local) welcome.set_shared_bytes(bytes);
      const std::string frame = wire::EncodeBulkFrame(BulkType::kWelcome, welcome);
      if (!local || memory < 0) {
        wire.Send(frame);
      } else if (!SendWithDescriptor(wire.fd(), AsBytes(frame), memory)) {
        return;
      }
      for (;;) {
        const std::optional<v1::BulkCall> call = ReadCall(wire);
        if (!call.has_value() || !(local ? on_local_call : on_call)(wire, *call)) return;
      }
    };
  }
  static bool ReadRelease(BulkWire& wire) {
    const std::optional<BulkWire::Frame> frame = wire.Read();
    return frame.has_value() && frame->type == BulkType::kRelease && frame->As<v1::BulkRelease>().batches() == 1;
  }
  // A chunk whose slabs lie in `arena_`.
  Batch Shared(uint32_t chunk) {
    Batch batch;
    batch.Result(chunk, chunks_[chunk]);
    for (uint32_t slab = 0; slab < chunks_[chunk].slabs.size(); ++slab) {
      const ByteSpan bytes = chunks_[chunk].slabs[slab];
      Buffer buffer(bytes.size(), arena_);
      std::memcpy(buffer.data(), bytes.data(), bytes.size());
      v1::BulkItem& item = batch.Bytes(chunk, slab, "");
      item.set_bytes(bytes.size());
      item.set_shared(true);
      item.set_offset(arena_->OffsetOf(buffer.span()).value());
      lent_.push_back(std::move(buffer).Freeze());
    }
    return batch;
  }
  static OnCall Never() {
    return [](BulkWire&, const v1::BulkCall&) {
      ADD_FAILURE() << "this connection is not for calls";
      return false;
    };
  }

  std::shared_ptr<SharedArena> arena_ = SharedArena::Create(1 << 20).value();
  std::vector<SharedBuffer> lent_;
};

TEST_P(HostileSharedNodeTest, SharedSlabsAreReadAndGivenBack) {
  const std::vector<Batch> batches = {Shared(0), Shared(1)};
  Batch last;
  last.Whole(2, chunks_[2]);
  node_->Serve(Lending(
      arena_->fd(), arena_->size(),
      [&](BulkWire& wire, const v1::BulkCall&) {
        for (const Batch& batch : batches) {
          if (!batch.Send(wire) || !ReadRelease(wire)) return false;
        }
        return last.Send(wire) && SendAnswer(wire);
      },
      Never()));
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone)) << i;
  node_.reset();  // its scripts use what is above
}

TEST_P(HostileSharedNodeTest, SlabsOutsideOfMemoryAreABreach) {
  const uint64_t size = chunks_[1].slabs[0].size();
  for (const uint64_t offset : {arena_->size(), arena_->size() - size + 1, UINT64_MAX, UINT64_MAX - size + 1}) {
    Batch beyond = Shared(1);
    beyond.slabs.mutable_items(1)->set_offset(offset);
    Batch first = Shared(0);
    node_->Serve(Lending(
        arena_->fd(), arena_->size(),
        [first, beyond](BulkWire& wire, const v1::BulkCall&) {
          first.Send(wire);
          beyond.Send(wire);
          AwaitEnd(wire);
          return false;
        },
        Never()));
    client_ = Connect({});
    EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, MissReason::kProtocol, MissReason::kProtocol))
        << offset;
  }
}

TEST_P(HostileSharedNodeTest, OtherBytesThanTheManifestSaysAreCorrupt) {
  Batch wrong = Shared(1);
  wrong.slabs.mutable_items(1)->set_offset(wrong.slabs.items(1).offset() + 1);
  const Batch first = Shared(0);
  const Batch last = Shared(2);
  node_->Serve(Lending(
      arena_->fd(), arena_->size(),
      [&](BulkWire& wire, const v1::BulkCall&) {
        for (const Batch* batch : {&first, &std::as_const(wrong), &last}) {
          if (!batch->Send(wire) || !ReadRelease(wire)) return false;
        }
        return SendAnswer(wire);
      },
      Never()));
  EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, MissReason::kCorrupt, MissReason::kNone));
  node_.reset();  // its scripts use what is above
}

// Memory that might end this process when it is read is not mapped; slabs come by TCP.
TEST_P(HostileSharedNodeTest, MemoryThatCannotBeTrustedIsNotUsed) {
  const UniqueFd unsealed(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), 1 << 20), 0);
  UniqueFd pipe_ends[2];
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  pipe_ends[0] = UniqueFd(ends[0]);
  pipe_ends[1] = UniqueFd(ends[1]);
  const std::vector<std::pair<int, uint64_t>> memories = {
      {unsealed.get(), 1 << 20}, {arena_->fd(), arena_->size() + 1}, {arena_->fd(), UINT64_MAX}, {arena_->fd(), 0},
      {-1, arena_->size()},      {pipe_ends[0].get(), 1 << 20},
  };
  for (const auto& [memory, bytes] : memories) {
    node_->Serve(Lending(memory, bytes, Never(), Honest()));
    client_ = Connect({});
    EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone)) << bytes;
  }
}

TEST_P(HostileSharedNodeTest, ALocalNodeThatWasStartedAnewIsFoundByTheNextCall) {
  const auto serve = [](const std::vector<Batch>& batches) -> OnCall {
    return [batches](BulkWire& wire, const v1::BulkCall&) {
      for (const Batch& batch : batches) {
        if (!batch.Send(wire) || !ReadRelease(wire)) return false;
      }
      return SendAnswer(wire);
    };
  };
  node_->Serve(Lending(arena_->fd(), arena_->size(), serve({Shared(0), Shared(1), Shared(2)}), Never()));
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  const uint16_t port = node_->port();
  node_.reset();
  // Its memory is another, and so are its socket's name and the slabs' places.
  arena_ = SharedArena::Create(2 << 20).value();
  const Buffer shift(12345, arena_);
  lent_.clear();
  node_ = std::make_unique<FakeNode>([](BulkWire&, bool) {}, port);
  node_->Serve(Lending(arena_->fd(), arena_->size(), serve({Shared(2), Shared(0), Shared(1)}), Never()));
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
}

TEST_P(HostileSharedNodeTest, ACancelledFetchReturnsSoon) {
  std::vector<ChunkKey> keys;
  for (const ChunkRef& ref : refs_) keys.push_back(ref.key);
  const Batch first = Shared(0);
  const auto stalling = std::make_shared<std::promise<void>>();
  node_->Serve(Lending(
      arena_->fd(), arena_->size(),
      [stalling, first](BulkWire& wire, const v1::BulkCall&) {
        first.Send(wire);
        stalling->set_value();
        AwaitEnd(wire);
        return false;
      },
      Never()));
  Cancellation cancel;
  std::thread canceller([&cancel, stalling] {
    stalling->get_future().wait();
    cancel.Cancel();
  });
  OpenSink sink;
  const absl::Time begin = absl::Now();
  const absl::Status ended =
      TransportTo({})->Fetch({.space = client_->space_id(), .keys = keys, .cancel = &cancel}, begin + kPlenty, sink);
  EXPECT_TRUE(absl::IsCancelled(ended)) << ended;
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  canceller.join();
}

std::string NameOf(const testing::TestParamInfo<const char*>& codec) { return codec.param; }

// Raw slabs are received straight into the engine's memory, others into buffers.
INSTANTIATE_TEST_SUITE_P(Codecs, HostileBulkNodeTest, testing::Values("raw", "zstd"), NameOf);
INSTANTIATE_TEST_SUITE_P(Codecs, HostileSharedNodeTest, testing::Values("raw", "zstd"), NameOf);

class OverloadPauseTest : public testing::Test {
 protected:
  // How long the pause is that has just begun, to a millisecond.
  absl::Duration Length() {
    absl::Duration length = absl::ZeroDuration();
    while (!pause_.Check().ok()) {
      clock_.Advance(absl::Milliseconds(1));
      length += absl::Milliseconds(1);
    }
    return length;
  }

  ManualClock clock_;
  OverloadPause pause_{clock_};
};

TEST_F(OverloadPauseTest, BeginsWithRefusalsAndGrowsUpToASecond) {
  EXPECT_TRUE(pause_.Check().ok());
  absl::Duration longest = absl::Milliseconds(20);
  for (int i = 0; i < 12; ++i) {
    pause_.Note(absl::ResourceExhaustedError("busy"));
    const absl::Status refused = pause_.Check();
    EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
    EXPECT_THAT(MessageOf(refused), HasSubstr("ms"));
    const absl::Duration length = Length();
    EXPECT_GE(length, longest / 2) << i;
    EXPECT_LE(length, longest + absl::Milliseconds(1)) << i;
    longest = std::min(2 * longest, absl::Seconds(1));
  }
}

TEST_F(OverloadPauseTest, RefusalsDuringAPauseDoNotProlongIt) {
  for (int i = 0; i < 100; ++i) pause_.Note(absl::ResourceExhaustedError("busy"));
  EXPECT_LE(Length(), absl::Milliseconds(21));
}

TEST_F(OverloadPauseTest, AnAnswerMakesTheNextPauseShortAgain) {
  for (int i = 0; i < 8; ++i) {
    pause_.Note(absl::ResourceExhaustedError("busy"));
    Length();
  }
  pause_.Note(absl::OkStatus());
  EXPECT_TRUE(pause_.Check().ok());
  pause_.Note(absl::ResourceExhaustedError("busy"));
  EXPECT_LE(Length(), absl::Milliseconds(21));
}

TEST_F(OverloadPauseTest, WhatSaysNothingAboutTheNodeChangesNothing) {
  for (int i = 0; i < 8; ++i) {
    pause_.Note(absl::ResourceExhaustedError("busy"));
    Length();
  }
  for (const absl::StatusCode code : {absl::StatusCode::kUnavailable, absl::StatusCode::kDeadlineExceeded}) {
    pause_.Note(absl::Status(code, "nothing"));
    EXPECT_TRUE(pause_.Check().ok());
  }
  pause_.Note(absl::ResourceExhaustedError("busy"));
  EXPECT_GE(Length(), absl::Milliseconds(499));
}

}  // namespace
}  // namespace kdn
