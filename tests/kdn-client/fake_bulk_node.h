// A fake node that speaks the bulk protocol as a test's script says, and what tests of clients against it share.
//
// Thread-safety: one thread at a time; scripts run on threads of the node.
#ifndef KDN_TESTS_KDN_CLIENT_FAKE_BULK_NODE_H_
#define KDN_TESTS_KDN_CLIENT_FAKE_BULK_NODE_H_

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kdn-client/chunk_encoder.h"
#include "kdn-client/client.h"
#include "kdn-client/transport.h"
#include "storage/base/mutex.h"
#include "storage/base/socket_io.h"
#include "tests/kdn-client/engine_memory.h"
#include "tests/proto/bulk_wire.h"

namespace kdn {

inline constexpr absl::Duration kPlenty = absl::Seconds(20);
inline constexpr uint32_t kTokens = 3 * kChunkTokens;

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
inline bool ReadGreeting(BulkWire& wire) {
  std::string preface(wire::kBulkPreface.size(), '\0');
  if (!wire.ReadExactly(preface.data(), preface.size()) || preface != wire::kBulkPreface) return false;
  const std::optional<BulkWire::Frame> hello = wire.Read();
  return hello.has_value() && hello->type == wire::BulkType::kHello;
}

inline v1::BulkWelcome Welcome() {
  v1::BulkWelcome welcome;
  welcome.set_version(wire::kBulkVersion);
  return welcome;
}

inline bool Greet(BulkWire& wire) { return ReadGreeting(wire) && wire.SendFrame(wire::BulkType::kWelcome, Welcome()); }

inline std::optional<v1::BulkCall> ReadCall(BulkWire& wire) {
  const std::optional<BulkWire::Frame> frame = wire.Read();
  if (!frame.has_value() || frame->type != wire::BulkType::kCall) return std::nullopt;
  return frame->As<v1::BulkCall>();
}

inline bool SendAnswer(BulkWire& wire, absl::StatusCode code = absl::StatusCode::kOk, const std::string& message = {}) {
  v1::BulkAnswer answer;
  answer.mutable_status()->set_code(static_cast<int>(code));
  answer.mutable_status()->set_message(message);
  return wire.SendFrame(wire::BulkType::kAnswer, answer);
}

// Waits until the peer closes the connection.
inline void AwaitEnd(BulkWire& wire) {
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
  bool Send(BulkWire& wire) const { return wire.SendFrame(wire::BulkType::kSlabs, slabs, data); }
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
        return wire.SendFrame(wire::BulkType::kAnswer, answer);
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

// Takes all there is.
class OpenSink final : public SlabSink {
 public:
  bool OnChunk(size_t, const ManifestPtr&, TierKind) override { return true; }
  void OnPart(size_t, uint32_t, uint64_t, ByteSpan) override {}
  void OnMiss(size_t, const Miss&) override {}
};

inline std::string NameOfCodec(const testing::TestParamInfo<const char*>& codec) { return codec.param; }

}  // namespace kdn

#endif  // KDN_TESTS_KDN_CLIENT_FAKE_BULK_NODE_H_
