// Files that safetensors writes are read where they lie; every other is refused with a reason.
#include "kangaroo/weights.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "json.h"
#include "safetensors.h"
#include "testing.h"

namespace {

// A folder that goes with its files.
class Folder {
 public:
  Folder() {
    char name[] = "/tmp/kangaroo_weights_XXXXXX";
    if (!mkdtemp(name)) std::abort();
    path_ = name;
  }
  ~Folder() {
    std::remove(file().c_str());
    rmdir(path_.c_str());
  }
  const std::string& path() const { return path_; }
  std::string file() const { return path_ + "/weights.safetensors"; }
  void write(const std::string& bytes) const {
    std::ofstream(file(), std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
  }

 private:
  std::string path_;
};

const Folder folder;

std::string with_header(std::string header, const std::string& data) {
  std::string bytes;
  for (unsigned shift = 0; shift < 64; shift += 8) {
    bytes.push_back(static_cast<char>(uint64_t{header.size()} >> shift & 0xff));
  }
  return bytes + header + data;
}

// Padded as safetensors does, so that data are aligned.
std::string file_of(std::string header, const std::string& data = "") {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return with_header(header, data);
}

std::string floats(int count) {
  std::string bytes;
  for (int i = 0; i < count; ++i) {
    const float value = static_cast<float>(i);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return bytes;
}

const std::string kGood =
    file_of(R"({"__metadata__":{"format":"kangaroo","say":"\"\u00e9\ud83e\udd98\n"},)"
            R"("matrix":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
            R"( "vector" : { "shape" : [ 4 ] , "data_offsets":[24,32], "dtype":"BF16"},)"
            R"("scalar":{"dtype":"I32","shape":[],"data_offsets":[32,36]},)"
            R"("none":{"dtype":"I64","shape":[0,7],"data_offsets":[36,36]},)"
            R"("é":{"dtype":"U8","shape":[1,1,1,1,1,1,1,4],"data_offsets":[36,40]}})",
            floats(10));

// Opens the file; closes it again if that went well.
kangaroo_status open_file(const std::string& path) {
  kangaroo_weights* weights = nullptr;
  const kangaroo_status status = kangaroo_weights_open(path.c_str(), &weights);
  EXPECT((status == KANGAROO_OK) == (weights != nullptr));
  kangaroo_weights_close(weights);
  return status;
}

bool last_error_says(const std::string& what) {
  const bool says = std::string(kangaroo_last_error()).find(what) != std::string::npos;
  if (!says) std::printf("not \"%s\": %s\n", what.c_str(), kangaroo_last_error());
  return says;
}

void test_a_good_file() {
  folder.write(kGood);
  kangaroo_weights* weights = nullptr;
  EXPECT(kangaroo_weights_open(folder.file().c_str(), &weights) == KANGAROO_OK);
  if (!weights) return;
  kangaroo_matrix matrix = {};
  EXPECT(kangaroo_weights_matrix(weights, "matrix", KANGAROO_FLOAT32, 2, 3, &matrix) ==
         KANGAROO_OK);
  EXPECT(matrix.rows == 2 && matrix.width == 3 && matrix.row_stride == 3);
  EXPECT(static_cast<const float*>(matrix.data)[5] == 5.0f);
  kangaroo_vector vector = {};
  EXPECT(kangaroo_weights_vector(weights, "vector", KANGAROO_BFLOAT16, 4, &vector) == KANGAROO_OK);
  EXPECT(vector.width == 4 && vector.dtype == KANGAROO_BFLOAT16);
  kangaroo_tensor_info info = {};
  EXPECT(kangaroo_weights_find(weights, "scalar", &info) == KANGAROO_OK);
  EXPECT(info.dtype == KANGAROO_INT32 && info.rank == 0 && info.bytes == 4);
  EXPECT(kangaroo_weights_find(weights, "none", &info) == KANGAROO_OK);
  EXPECT(info.dtype == KANGAROO_INT64 && info.rank == 2 && info.bytes == 0);
  EXPECT(kangaroo_weights_find(weights, "é", &info) == KANGAROO_OK);
  EXPECT(info.rank == KANGAROO_MAX_RANK && info.sizes[7] == 4 && info.bytes == 4);
  EXPECT(kangaroo_weights_has(weights, "matrix") && !kangaroo_weights_has(weights, "matri"));
  EXPECT(!kangaroo_weights_has(weights, "__metadata__"));
  EXPECT(std::string(kangaroo_weights_metadata(weights, "format")) == "kangaroo");
  EXPECT(std::string(kangaroo_weights_metadata(weights, "say")) == "\"é🦘\n");
  EXPECT(kangaroo_weights_metadata(weights, "odd") == nullptr);
  kangaroo_weights_close(weights);
}

void test_what_is_asked_for_must_be_there() {
  folder.write(kGood);
  kangaroo_weights* weights = nullptr;
  EXPECT(kangaroo_weights_open(folder.file().c_str(), &weights) == KANGAROO_OK);
  kangaroo_matrix matrix = {};
  kangaroo_vector vector = {};
  kangaroo_tensor_info info = {};
  const auto refused = [](kangaroo_status status, const char* why) {
    return status == KANGAROO_INVALID_ARGUMENT && last_error_says(why);
  };
  EXPECT(refused(kangaroo_weights_matrix(weights, "matrix", KANGAROO_BFLOAT16, 3, 2, &matrix),
                 "weights_matrix: matrix: expected bfloat16 [3, 2], got float32 [2, 3]"));
  EXPECT(refused(kangaroo_weights_vector(weights, "matrix", KANGAROO_FLOAT32, 6, &vector),
                 "weights_vector: matrix: expected float32 [6], got float32 [2, 3]"));
  EXPECT(refused(kangaroo_weights_find(weights, "od\nd", &info), "od?d: expected a tensor, got n"));
  EXPECT(refused(kangaroo_weights_find(weights, nullptr, &info), "name"));
  EXPECT(refused(kangaroo_weights_find(weights, "matrix", nullptr), "out"));
  EXPECT(refused(kangaroo_weights_find(nullptr, "matrix", &info), "weights"));
  EXPECT(!matrix.data && !vector.data && !info.data);
  EXPECT(!kangaroo_weights_metadata(nullptr, "x") && !kangaroo_weights_metadata(weights, nullptr));
  EXPECT(!kangaroo_weights_has(nullptr, "x") && !kangaroo_weights_has(weights, nullptr));
  kangaroo_weights_close(weights);
  kangaroo_weights_close(nullptr);
  EXPECT(refused(kangaroo_weights_open(folder.file().c_str(), nullptr), "out"));
  EXPECT(refused(kangaroo_weights_open(nullptr, &weights), "path") && !weights);
}

void test_what_is_no_file() {
  EXPECT(open_file(folder.path()) == KANGAROO_IO_ERROR && last_error_says("expected a file"));
  EXPECT(open_file(folder.path() + "/absent") == KANGAROO_IO_ERROR);
  EXPECT(last_error_says("/absent: No such file"));
}

struct Bad {
  std::string bytes;
  const char* why;
};

void refuse_all(const std::vector<Bad>& files) {
  for (const Bad& bad : files) {
    folder.write(bad.bytes);
    EXPECT(open_file(folder.file()) == KANGAROO_IO_ERROR);
    EXPECT(last_error_says(bad.why) && last_error_says(folder.file()));
  }
}

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"a":)" + tensor(dtype, shape, offsets) + "}";
}

void test_bad_lengths() {
  refuse_all({
      {"", "got one of 0 bytes"},
      {"1234567", "got one of 7 bytes"},
      {with_header("", ""), "byte 0: expected '{', got its end"},
      {kGood.substr(0, 100), "header: expected at most 92 bytes"},
      {kGood.substr(0, kGood.size() - 1), "data_offsets: expected a range in [0, 39]"},
      {kGood + "x", "expected the end of the file, got 1 bytes more"},
      {std::string(8, '\xff') + "{}", "got 18446744073709551615"},
      {file_of("{}", "1234"), "got 4 bytes more"},
  });
}

void test_bad_json() {
  refuse_all({
      {file_of("[]"), "expected '{'"},
      {file_of("{"), "expected '\"'"},
      {file_of("{}{"), "expected nothing but spaces, got '{'"},
      {with_header(std::string("{}\0", 3), ""), "expected nothing but spaces, got '?'"},
      {file_of(R"({"a)"), "expected the end of a string"},
      {file_of("{\"a\nb\":1}"), "no control character"},
      {file_of(R"({"a\x":1})"), "an escape of JSON"},
      {file_of(R"({"\u00g0":1})"), "four hexadecimal digits"},
      {file_of(R"({"\u0000":1})"), "without NUL"},
      {file_of(R"({"\ud800":1})"), "both halves"},
      {file_of(R"({"\ud800\u0041":1})"), "second half"},
      {file_of(R"({"a":1})"), "expected '{'"},
      {file_of(R"({"a":{},})"), "expected dtype, shape and two data_offsets"},
      {file_of("{\"\xff\":1}"), "expected UTF-8"},
      {file_of("{\"\xc0\x80\":1}"), "expected UTF-8"},
      {file_of("{\"\xed\xa0\x80\":1}"), "expected UTF-8"},
      {file_of("{\"\xf4\x90\x80\x80\":1}"), "expected UTF-8"},
      {with_header("{\"\xc3", ""), "expected UTF-8"},
      {file_of(R"({"__metadata__":{"a":1}})"), "expected '\"'"},
      {file_of(R"({"__metadata__":{"a":"1","a":"2"}})"), "a: expected once"},
      {file_of(R"({"__metadata__":{},"__metadata__":{}})"), "expected once"},
  });
}

void test_bad_tensors() {
  const std::string largest = "9223372036854775807";
  refuse_all({
      {file_of(one("F8_E5M2", "[4]", "[0,4]"), "1234"), "a: dtype: expected F64"},
      {file_of(one("F32", "[01]", "[0,4]"), "1234"), "without leading zeros"},
      {file_of(one("F32", "[-1]", "[0,4]"), "1234"), "an integer of at least 0"},
      {file_of(one("F32", "[1.0]", "[0,4]"), "1234"), "expected ']', got '.'"},
      {file_of(one("F32", "[9223372036854775808]", "[0,4]"), "1234"), "below 2^63"},
      {file_of(one("F32", "[" + largest + "]", "[0,4]"), "1234"), "below 2^63, got more"},
      {file_of(one("U8", "[4294967296,4294967296]", "[0,0]")), "below 2^63, got more"},
      {file_of(one("F32", "[0," + largest + "]", "[0,0]")), "below 2^63, got more"},
      {file_of(one("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), "1"), "at most 8 sizes"},
      {file_of(one("F32", "[2]", "[0,4]"), "1234"), "expected 8 bytes, as dtype and shape say"},
      {file_of(one("F32", "[0]", "[4,0]"), "1234"), "in [0, 4], got [4, 0]"},
      {file_of(one("F32", "[1]", "[4,8]"), "1234"), "in [0, 4], got [4, 8]"},
      {file_of(one("F32", "[1]", "[0]"), "1234"), "two data_offsets"},
      {file_of(one("F32", "[1]", "[0,4,4]"), "1234"), "expected 2 numbers"},
      {file_of(R"({"a":{"dtype":"F32","dtype":"F32"}})"), "a: dtype: expected once"},
      {file_of(R"({"a":{"odd":"F32"}})"), "got odd"},
      {file_of(R"({"a":)" + tensor("U8", "[1]", "[0,1]") + R"(,"\u0061":)" +
                   tensor("U8", "[1]", "[1,2]") + "}",
               "12"),
       "tensor a: expected once, got twice"},
      {file_of(R"({"a":)" + tensor("U8", "[2]", "[0,2]") + R"(,"b":)" +
                   tensor("U8", "[2]", "[1,3]") + "}",
               "123"),
       "b: overlaps another tensor"},
      {file_of(R"({"a":)" + tensor("U8", "[1]", "[0,1]") + R"(,"b":)" +
                   tensor("U8", "[1]", "[2,3]") + "}",
               "123"),
       "b: bytes of no tensor before it"},
      {with_header(one("F32", "[1]", "[0,4]") + std::string(3, ' '), "1234"), "aligned to 4 bytes"},
  });
}

// Memory of exactly that size, so that a sanitizer sees every byte that is read beyond it.
bool readable(const std::string& bytes) {
  char* const copy = static_cast<char*>(std::malloc(bytes.size()));
  std::memcpy(copy, bytes.data(), bytes.size());
  bool good = true;
  try {
    const kangaroo::Contents contents =
        kangaroo::read_safetensors(std::string_view(copy, bytes.size()));
    for (const auto& tensor : contents.tensors) {
      const char* data = static_cast<const char*>(tensor.second.data);
      EXPECT(data >= copy && data + tensor.second.bytes <= copy + bytes.size());
      EXPECT(tensor.second.rank <= KANGAROO_MAX_RANK);
    }
  } catch (const kangaroo::Fault& fault) {
    EXPECT(!fault.what.empty());
    good = false;
  }
  std::free(copy);
  return good;
}

void test_corruption() {
  std::mt19937 generator(1);
  const auto below = [&](std::size_t limit) { return generator() % limit; };
  const std::string symbols = "{}[]\":,0192 \\u\xc3\xff";
  int refused = 0;
  constexpr int kFiles = 20000;
  for (int number = 0; number < kFiles; ++number) {
    std::string bytes = kGood;
    for (std::size_t edits = 1 + below(3); edits-- > 0 && !bytes.empty();) {
      const std::size_t at = below(bytes.size());
      switch (below(6)) {
        case 0:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
          break;
        case 1:
          bytes[at] = symbols[below(symbols.size())];
          break;
        case 2:
          bytes.resize(at);
          break;
        case 3:
          bytes.erase(at, 1 + below(9));
          break;
        case 4:
          bytes.insert(at, bytes, below(bytes.size()), below(40));
          break;
        default:
          bytes.insert(at, 1 + below(4), symbols[below(symbols.size())]);
      }
    }
    const bool good = readable(bytes);
    refused += good ? 0 : 1;
    if (number % 20 == 0) {  // the same through a file
      folder.write(bytes);
      EXPECT((open_file(folder.file()) == KANGAROO_OK) == good);
    }
  }
  EXPECT(refused > kFiles / 2 && refused < kFiles);
}

}  // namespace

int main() {
  test_a_good_file();
  test_what_is_asked_for_must_be_there();
  test_what_is_no_file();
  test_bad_lengths();
  test_bad_json();
  test_bad_tensors();
  test_corruption();
  return testing::result();
}
