#include "storage/base/small_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "storage/base/status.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

class SmallFileTest : public ::testing::Test {
 protected:
  SmallFileTest() { std::filesystem::create_directories(directory_); }
  ~SmallFileTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const { return (directory_ / name).string(); }
  size_t Files() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory_), {}));
  }

  const std::filesystem::path directory_ =
      std::filesystem::path(::testing::TempDir()) /
      (std::string("kdn_small_file_") + ::testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(SmallFileTest, WhatIsWrittenIsRead) {
  const std::string binary("a\0b\n", 4);
  for (const Durability durability : {Durability::kNone, Durability::kSynced}) {
    for (const std::string& bytes : {binary, std::string(), std::string(100000, 'x')}) {
      ASSERT_TRUE(ReplaceFile(Path("f"), bytes, durability).ok());
      EXPECT_EQ(ReadSmallFile(Path("f"), 100000).value(), bytes);
    }
  }
  EXPECT_EQ(Files(), 1u) << "nothing else is left behind";
  struct stat about = {};
  ASSERT_EQ(stat(Path("f").c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0644u);
}

TEST_F(SmallFileTest, WhatIsNoSmallFileIsRefusedByName) {
  EXPECT_TRUE(absl::IsNotFound(ReadSmallFile(Path("none"), 10).status()));
  EXPECT_THAT(MessageOf(ReadSmallFile(directory_.string(), 10).status()), HasSubstr("this is no file"));
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(MessageOf(ReadSmallFile(Path("pipe"), 10).status()), HasSubstr("pipe: this is no file"));
  ASSERT_TRUE(ReplaceFile(Path("long"), "12345678901", Durability::kNone).ok());
  EXPECT_THAT(MessageOf(ReadSmallFile(Path("long"), 10).status()), HasSubstr("long: the file is longer than 10 bytes"));
  EXPECT_EQ(ReadSmallFile(Path("long"), 11).value().size(), 11u);
}

TEST_F(SmallFileTest, WhereItCannotBeWrittenTheOldOneStays) {
  EXPECT_THAT(MessageOf(ReplaceFile(Path("no/such/folder"), "x", Durability::kSynced)), HasSubstr("no/such/folder"));
  std::filesystem::create_directory(Path("folder"));
  EXPECT_FALSE(ReplaceFile(Path("folder"), "x", Durability::kSynced).ok());
  EXPECT_EQ(Files(), 1u) << "nothing half written is left behind";
}

TEST_F(SmallFileTest, ReadersFindOneOrTheOtherWhole) {
  const std::string one(5000, '1');
  const std::string two(3000, '2');
  ASSERT_TRUE(ReplaceFile(Path("f"), one, Durability::kNone).ok());
  std::thread writer([&] {
    for (int i = 0; i < 200; ++i) EXPECT_TRUE(ReplaceFile(Path("f"), i % 2 == 0 ? two : one, Durability::kNone).ok());
  });
  for (int i = 0; i < 200; ++i) {
    const std::string found = ReadSmallFile(Path("f"), 10000).value();
    EXPECT_TRUE(found == one || found == two) << found.size();
  }
  writer.join();
}

}  // namespace
}  // namespace kdn
