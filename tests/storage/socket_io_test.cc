#include "storage/base/socket_io.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kdn {
namespace {

std::string SomeBytes(size_t size) {
  std::mt19937 random(1);
  std::string bytes(size, '\0');
  std::ranges::generate(bytes, [&] { return static_cast<char>(random()); });
  return bytes;
}

MutableByteSpan SpanOf(std::string& s) { return {reinterpret_cast<uint8_t*>(s.data()), s.size()}; }

class SocketIoTest : public ::testing::Test {
 protected:
  SocketIoTest() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    ours_ = UniqueFd(ends[0]);
    peer_ = UniqueFd(ends[1]);
  }

  void PeerSends(std::string_view bytes) {
    ASSERT_EQ(send(peer_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // All that lies in the peer's end by now.
  std::string PeerReads(size_t at_most = SIZE_MAX) {
    std::string all;
    std::array<char, 65536> part;
    while (all.size() < at_most) {
      const ssize_t n = recv(peer_.get(), part.data(), std::min(part.size(), at_most - all.size()), 0);
      if (n <= 0) break;
      all.append(part.data(), static_cast<size_t>(n));
    }
    return all;
  }
  // Sends `bytes` with descriptors.
  void PeerSendsDescriptors(std::string_view bytes, const std::vector<int>& descriptors) {
    iovec piece = {.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
    alignas(cmsghdr) std::array<uint8_t, CMSG_SPACE(8 * sizeof(int))> control{};
    msghdr message = {};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    cmsghdr* const c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
    std::memcpy(CMSG_DATA(c), descriptors.data(), descriptors.size() * sizeof(int));
    ASSERT_EQ(sendmsg(peer_.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  static size_t OpenDescriptors() {
    const std::filesystem::directory_iterator open("/proc/self/fd");
    return static_cast<size_t>(std::distance(begin(open), end(open)));
  }

  UniqueFd ours_;
  UniqueFd peer_;
};

TEST_F(SocketIoTest, FillGathersWhatComesInPieces) {
  SocketReader reader(ours_.get());
  EXPECT_EQ(reader.Fill(4), SocketState::kBlocked);
  PeerSends("ab");
  EXPECT_EQ(reader.Fill(4), SocketState::kBlocked);
  EXPECT_EQ(AsStringView(reader.buffered()), "ab") << "what came stays";
  PeerSends("cdef");
  ASSERT_EQ(reader.Fill(4), SocketState::kReady);
  EXPECT_EQ(AsStringView(reader.buffered()), "abcdef") << "what lies there is read along";
  reader.Consume(4);
  ASSERT_EQ(reader.Fill(2), SocketState::kReady);
  EXPECT_EQ(AsStringView(reader.buffered()), "ef");
  reader.Consume(2);
  EXPECT_EQ(reader.Fill(0), SocketState::kReady);
  EXPECT_EQ(reader.Fill(1), SocketState::kBlocked);
}

TEST_F(SocketIoTest, FillTakesMoreThanTheReadAheadAndKeepsWhatWasThere) {
  const std::string bytes = SomeBytes(100'000);
  SocketReader reader(ours_.get());
  size_t sent = 0;
  size_t consumed = 0;
  // Frames of growing size, each begun while a part of it is already buffered.
  for (const size_t frame : {10u, 16'000u, 3u, 20'000u, 50'000u}) {
    const size_t ahead = std::min(bytes.size(), consumed + frame + 5);
    if (ahead > sent) PeerSends(std::string_view(bytes).substr(sent, ahead - sent));
    sent = std::max(sent, ahead);
    ASSERT_EQ(reader.Fill(frame), SocketState::kReady) << frame;
    EXPECT_TRUE(AsStringView(reader.buffered().first(frame)) == std::string_view(bytes).substr(consumed, frame));
    reader.Consume(frame);
    consumed += frame;
  }
}

TEST_F(SocketIoTest, ReadAheadIsHandedOutFirst) {
  const std::string bytes = SomeBytes(5000);
  PeerSends(bytes);
  SocketReader reader(ours_.get());
  ASSERT_EQ(reader.Fill(16), SocketState::kReady);
  reader.Consume(16);
  ASSERT_EQ(reader.buffered().size(), bytes.size() - 16) << "this test is about bytes that were read ahead";
  PeerSends("later");

  std::string first(1000, '\0');
  std::string second(6000, '\0');
  const std::array rooms = {SpanOf(first), SpanOf(second)};
  uint64_t read = 0;
  ASSERT_EQ(reader.ReadInto(rooms, &read), SocketState::kReady);
  ASSERT_EQ(read, bytes.size() - 16);
  EXPECT_TRUE(first == bytes.substr(16, 1000));
  EXPECT_TRUE(second.substr(0, read - 1000) == bytes.substr(1016));

  std::string third(3, '\0');
  ASSERT_EQ(reader.ReadInto(std::array{SpanOf(third)}, &read), SocketState::kReady);
  EXPECT_EQ(third.substr(0, read), "lat");
  ASSERT_EQ(reader.Fill(2), SocketState::kReady) << "what was beyond the rooms was read along";
  EXPECT_EQ(AsStringView(reader.buffered()), "er");
}

TEST_F(SocketIoTest, ReadIntoFillsRoomsInOrderWithPartialReads) {
  const std::string bytes = SomeBytes(3000);
  SocketReader reader(ours_.get());
  // More rooms than one call takes, some of them empty.
  std::vector<std::string> rooms(200);
  for (size_t i = 0; i < rooms.size(); ++i) rooms[i].resize(i % 3 == 0 ? 0 : 20);
  std::string got;
  size_t sent = 0;
  while (got.size() < 2600) {
    if (sent < bytes.size()) {
      const size_t part = std::min<size_t>(777, bytes.size() - sent);
      PeerSends(std::string_view(bytes).substr(sent, part));
      sent += part;
    }
    std::vector<MutableByteSpan> spans;
    size_t skip = got.size();
    for (std::string& room : rooms) {
      const size_t of_this = std::min(skip, room.size());
      skip -= of_this;
      spans.push_back(SpanOf(room).subspan(of_this));
    }
    uint64_t read = 0;
    const SocketState state = reader.ReadInto(spans, &read);
    ASSERT_EQ(state, SocketState::kReady);
    ASSERT_GT(read, 0u);
    std::string all;
    for (const std::string& room : rooms) all += room;
    got = all.substr(0, got.size() + read);
    ASSERT_TRUE(got == bytes.substr(0, got.size())) << got.size();
  }
  uint64_t read = 1;
  std::string room(10000, '\0');
  ASSERT_EQ(reader.ReadInto(std::array{SpanOf(room)}, &read), SocketState::kReady);
  got += room.substr(0, read);
  while (sent < bytes.size() || got.size() < bytes.size()) {
    if (sent < bytes.size()) PeerSends(std::string_view(bytes).substr(std::exchange(sent, bytes.size())));
    ASSERT_EQ(reader.ReadInto(std::array{SpanOf(room)}, &read), SocketState::kReady);
    got += room.substr(0, read);
  }
  EXPECT_TRUE(got == bytes);
  EXPECT_EQ(reader.ReadInto(std::array{SpanOf(room)}, &read), SocketState::kBlocked);
  EXPECT_EQ(read, 0u);
}

TEST_F(SocketIoTest, APeerThatLeftIsClosedOnceItsBytesAreRead) {
  PeerSends("rest");
  peer_.Close();
  SocketReader reader(ours_.get());
  ASSERT_EQ(reader.Fill(4), SocketState::kReady);
  reader.Consume(4);
  EXPECT_EQ(reader.Fill(1), SocketState::kClosed);
  std::string room(1, '\0');
  uint64_t read = 0;
  EXPECT_EQ(reader.ReadInto(std::array{SpanOf(room)}, &read), SocketState::kClosed);

  SocketWriter writer;
  writer.Add(SharedBuffer::CopyOf(AsBytes("x")));
  uint64_t sent = 0;
  EXPECT_EQ(writer.SendTo(ours_.get(), &sent), SocketState::kClosed) << "and no signal";
  EXPECT_EQ(sent, 0u);
}

TEST_F(SocketIoTest, TrimKeepsWhatIsBuffered) {
  SocketReader reader(ours_.get());
  PeerSends("abc");
  ASSERT_EQ(reader.Fill(3), SocketState::kReady);
  reader.Trim();
  EXPECT_EQ(AsStringView(reader.buffered()), "abc");
  reader.Consume(3);
  reader.Trim();
  EXPECT_TRUE(reader.buffered().empty());
  PeerSends("de");
  ASSERT_EQ(reader.Fill(2), SocketState::kReady);
  EXPECT_EQ(AsStringView(reader.buffered()), "de");
}

TEST_F(SocketIoTest, WriterSendsManyPiecesInOrderPastAFullSocket) {
  const std::string bytes = SomeBytes(4 << 20);
  SocketWriter writer;
  size_t at = 0;
  for (size_t i = 0; at < bytes.size(); ++i) {
    const size_t size = std::min<size_t>(i % 7 == 0 ? 0 : 1 + i * 997 % 40'000, bytes.size() - at);
    writer.Add(SharedBuffer::CopyOf(AsBytes(std::string_view(bytes).substr(at, size))));
    at += size;
  }
  uint64_t sent = 0;
  std::string got;
  bool blocked = false;
  for (;;) {
    const SocketState state = writer.SendTo(ours_.get(), &sent);
    ASSERT_NE(state, SocketState::kClosed);
    if (state == SocketState::kReady) break;
    blocked = true;
    EXPECT_FALSE(writer.empty());
    const std::string part = PeerReads(10'001);  // ends within a piece
    ASSERT_FALSE(part.empty());
    got += part;
  }
  EXPECT_TRUE(blocked);
  EXPECT_TRUE(writer.empty());
  EXPECT_EQ(sent, bytes.size());
  got += PeerReads();
  EXPECT_TRUE(got == bytes);
}

TEST_F(SocketIoTest, ClearedPiecesAreNeverSent) {
  SocketWriter writer;
  writer.Add(SharedBuffer::CopyOf(AsBytes(SomeBytes(4 << 20))));
  uint64_t sent = 0;
  ASSERT_EQ(writer.SendTo(ours_.get(), &sent), SocketState::kBlocked);
  writer.Clear();
  EXPECT_TRUE(writer.empty());
  EXPECT_EQ(PeerReads().size(), sent);
  writer.Add(SharedBuffer::CopyOf(AsBytes("next")));
  ASSERT_EQ(writer.SendTo(ours_.get(), &sent), SocketState::kReady);
  EXPECT_EQ(PeerReads(), "next") << "from its first byte";
}

TEST_F(SocketIoTest, ADescriptorTravelsWithItsBytes) {
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  UniqueFd read_end(pipe_ends[0]);
  UniqueFd write_end(pipe_ends[1]);
  ASSERT_TRUE(SendWithDescriptor(peer_.get(), AsBytes("here"), write_end.get()));
  write_end.Close();

  SocketReader reader(ours_.get());
  ASSERT_EQ(reader.Fill(4), SocketState::kReady);
  EXPECT_EQ(AsStringView(reader.buffered()), "here");
  UniqueFd received = reader.TakeDescriptor();
  ASSERT_TRUE(received.valid());
  EXPECT_FALSE(reader.TakeDescriptor().valid());
  EXPECT_NE(fcntl(received.get(), F_GETFD) & FD_CLOEXEC, 0);
  ASSERT_EQ(write(received.get(), "x", 1), 1);
  received.Close();
  std::array<char, 2> got;
  EXPECT_EQ(read(read_end.get(), got.data(), got.size()), 1);
  EXPECT_EQ(read(read_end.get(), got.data(), got.size()), 0) << "no copy of it is left open";
}

TEST_F(SocketIoTest, DescriptorsThatNobodyTakesAreNotLeftOpen) {
  UniqueFd some(open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(some.valid());
  const size_t before = OpenDescriptors();
  for (const size_t count : {1u, 2u, 5u}) {
    SocketReader reader(ours_.get());
    for (int round = 0; round < 10; ++round) {
      PeerSendsDescriptors("x", std::vector<int>(count, some.get()));
      ASSERT_EQ(reader.Fill(1), SocketState::kReady);
      reader.Consume(1);
    }
    PeerSendsDescriptors("x", std::vector<int>(count, some.get()));
    std::string room(1, '\0');
    uint64_t read = 0;
    ASSERT_EQ(reader.ReadInto(std::array{SpanOf(room)}, &read), SocketState::kReady);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(SocketIoTest, SendWithDescriptorSaysWhenTheSocketDoesNotTakeIt) {
  const std::string much = SomeBytes(1 << 16);
  while (send(peer_.get(), much.data(), much.size(), MSG_NOSIGNAL) > 0) {
  }
  EXPECT_FALSE(SendWithDescriptor(peer_.get(), AsBytes("here"), 0));
  ours_.Close();
  EXPECT_FALSE(SendWithDescriptor(peer_.get(), AsBytes("here"), 0));
}

}  // namespace
}  // namespace kdn
