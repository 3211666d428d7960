// Fuzz target: whatever a peer sends, a node's side of a connection of the bulk protocol answers in well-formed frames,
// never says that it has more to do when it has not, and keeps nothing once the peer has gone.
//
// The first byte of the input says who the peer is and how the rest is taken: as it is, or as frames
// | type, 1 byte | size of the message, 2 bytes | size of the data, 2 bytes | message | data |, of which some types
// stand for calls that no fuzzer would guess.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "kdn-node/bulk/bulk_connection.h"
#include "storage/format/chunk_key.h"
#include "tests/fuzz/require.h"

namespace kdn {
namespace {

using Wait = BulkConnection::Wait;
using wire::BulkType;

Chunk SomeChunk(uint32_t seed) {
  KvSpace space;
  space.model_id = "test/model";
  space.weights_revision = "r1";
  space.dtype = DType::kBf16;
  space.layers = {{.count = 2, .kv_heads = 1, .k_dim = 8, .v_dim = 8, .rope = {}}};
  Manifest manifest;
  manifest.space = ComputeSpaceId(space).value();
  const std::vector<Token> tokens(4, seed);
  manifest.key = ComputeChunkKey(manifest.space, ChunkKey{}, tokens);
  manifest.tokens = 4;
  manifest.slabs = SlabsOf(space, 4);
  Chunk chunk;
  for (SlabInfo& slab : manifest.slabs) {
    chunk.slabs.push_back(SharedBuffer::CopyOf(AsBytes(std::string(slab.shape.RawSize(), static_cast<char>(seed)))));
    slab.codec = CodecId::kRaw;
    slab.encoded_size = chunk.slabs.back().size();
    slab.checksum = SlabChecksum(chunk.slabs.back());
  }
  chunk.manifest = std::make_shared<const Manifest>(std::move(manifest));
  return chunk;
}

struct Node {
  Node() { Require(store->Put(held, Ack::kMemory, Checksums::kToVerify).ok(), "the store takes a chunk"); }

  static TieredStoreOptions Options() {
    TieredStoreOptions options;
    options.memory_bytes = uint64_t{16} << 20;
    options.arena = SharedArena::Create(uint64_t{16} << 20).value();
    return options;
  }

  const Chunk held = SomeChunk(1);
  const std::unique_ptr<TieredStore> store = TieredStore::Open(Options()).value();
  NodeMetrics metrics{*store};
  ServiceState state{*store, metrics, {.max_upload_bytes = uint64_t{1} << 20}, Clock::Real()};
  const BulkIdentity identity = {.machine = "machine", .local_socket = "socket"};
};

// Calls that make sense, as their frames.
std::string FetchOf(const Chunk& chunk) {
  v1::BulkCall call;
  call.set_timeout_us(1'000'000);
  call.mutable_fetch()->set_space_id(std::string(AsStringView(chunk.manifest->space.span())));
  call.mutable_fetch()->set_keys(std::string(AsStringView(chunk.manifest->key.span())));
  return wire::EncodeBulkFrame(BulkType::kCall, call);
}
std::string StoreOf(uint32_t chunks) {
  v1::BulkCall call;
  call.mutable_store()->set_chunks(chunks);
  return wire::EncodeBulkFrame(BulkType::kCall, call);
}
std::string ChunkFrame(const Chunk& chunk) {
  v1::StoreBegin begin;
  begin.set_manifest(EncodeManifest(*chunk.manifest).value());
  begin.set_ack(v1::ACK_MEMORY);
  std::string frame = wire::EncodeBulkFrame(BulkType::kChunk, begin, chunk.manifest->EncodedBytes());
  for (const SharedBuffer& slab : chunk.slabs) frame += AsStringView(slab);
  return frame;
}

std::string Sent(const Node& node, std::string_view input) {
  v1::BulkHello hello;
  hello.set_version(wire::kBulkVersion);
  std::string sent = std::string(wire::kBulkPreface) + wire::EncodeBulkFrame(BulkType::kHello, hello);
  const auto number = [&input] {
    const size_t value = static_cast<uint8_t>(input[1]) * size_t{256} + static_cast<uint8_t>(input[0]);
    input.remove_prefix(2);
    return value;
  };
  while (input.size() >= 5) {
    const auto type = static_cast<uint8_t>(input[0]);
    input.remove_prefix(1);
    const size_t message_bytes = number();
    const size_t data_bytes = number();
    if (type == 0x80) {
      sent += FetchOf(node.held);
    } else if (type == 0x81) {
      sent += StoreOf(static_cast<uint32_t>(message_bytes));
    } else if (type == 0x82) {
      std::string frame = ChunkFrame(SomeChunk(2));
      if (data_bytes < frame.size()) frame[data_bytes] = static_cast<char>(frame[data_bytes] ^ 1);
      sent += frame;
    } else {
      const auto header = wire::EncodeBulkHeader({.type = static_cast<BulkType>(type),
                                                  .message_bytes = static_cast<uint32_t>(message_bytes),
                                                  .data_bytes = data_bytes});
      sent.append(header.begin(), header.end());
      const size_t follows = std::min(input.size(), message_bytes + data_bytes);
      sent += input.substr(0, follows);
      input.remove_prefix(follows);
    }
  }
  return sent;
}

// What the node sends must be frames that a node may send, whose messages are well-formed.
class Listener {
 public:
  void Take(std::string_view bytes) {
    pending_ += bytes;
    for (;;) {
      const size_t skipped = static_cast<size_t>(std::min<uint64_t>(data_left_, pending_.size()));
      pending_.erase(0, skipped);
      data_left_ -= skipped;
      if (data_left_ > 0 || pending_.size() < wire::kBulkHeaderBytes) return;
      std::array<uint8_t, wire::kBulkHeaderBytes> bytes_of_header;
      std::memcpy(bytes_of_header.data(), pending_.data(), bytes_of_header.size());
      const absl::StatusOr<wire::BulkHeader> header = wire::ParseBulkHeader(bytes_of_header);
      Require(header.ok(), "a node's frame has a header");
      const size_t size = wire::kBulkHeaderBytes + header->message_bytes;
      if (pending_.size() < size) return;
      OnMessage(header->type, pending_.substr(wire::kBulkHeaderBytes, header->message_bytes), header->data_bytes);
      data_left_ = header->data_bytes;
      pending_.erase(0, size);
    }
  }

 private:
  static void OnMessage(BulkType type, const std::string& message, uint64_t data_bytes) {
    if (type == BulkType::kWelcome) return Require(v1::BulkWelcome().ParseFromString(message), "a welcome");
    if (type == BulkType::kAnswer) {
      Require(data_bytes == 0, "answers have no data");
      return Require(v1::BulkAnswer().ParseFromString(message), "an answer");
    }
    Require(type == BulkType::kSlabs, "nodes send welcomes, slabs and answers");
    v1::BulkSlabs slabs;
    Require(slabs.ParseFromString(message), "slabs");
    uint64_t bytes = 0;
    for (const v1::BulkItem& item : slabs.items()) bytes += item.shared() ? 0 : item.bytes();
    Require(bytes == data_bytes, "items say how many bytes follow");
  }

  std::string pending_;
  uint64_t data_left_ = 0;
};

void Try(std::string_view input) {
  static auto& node = *new Node;
  const bool local = (input[0] & 1) != 0;
  const bool raw = (input[0] & 2) != 0;
  input.remove_prefix(1);
  const std::string sent = raw ? std::string(input) : Sent(node, input);

  int ends[2];
  Require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0, "there are sockets");
  UniqueFd peer(ends[0]);
  Listener listener;
  {
    BulkConnection connection(node.state, node.identity, UniqueFd(ends[1]), local);
    size_t at = 0;
    bool closed = false;
    Wait wait = Wait::kToRead;
    for (int turns = 0; wait != Wait::kOver; ++turns) {
      Require(turns < 100'000, "it comes to an end");
      if (at < sent.size()) {
        // Not all at once, so that frames come in parts.
        const size_t part = std::min(sent.size() - at, size_t{1} + (at * 7 + input.size()) % 4096);
        const ssize_t n = send(peer.get(), sent.data() + at, part, MSG_NOSIGNAL);
        at = n < 0 && errno == EPIPE ? sent.size() : at + static_cast<size_t>(std::max<ssize_t>(n, 0));
      } else if (!closed && wait == Wait::kToRead) {
        shutdown(peer.get(), SHUT_WR);
        closed = true;
      }
      wait = connection.Run();
      std::array<char, 65536> said;
      for (ssize_t n; (n = recv(peer.get(), said.data(), said.size(), 0)) > 0;) {
        listener.Take({said.data(), static_cast<size_t>(n)});
      }
    }
  }
  Require(node.state.uploads.held() == 0 && node.state.fetches.held() == 0, "nothing is held for a peer that has gone");
  Require(node.state.streams.AwaitNone(std::chrono::steady_clock::now()), "no call is left running");
}

}  // namespace
}  // namespace kdn

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) kdn::Try({reinterpret_cast<const char*>(data), size});
  return 0;
}
