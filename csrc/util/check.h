// BITINFER_CHECK: a failed precondition of a public entry becomes std::invalid_argument with the
// values in its text.
#pragma once

#include <sstream>
#include <stdexcept>

#define BITINFER_CHECK(condition, message)                    \
  do {                                                        \
    if (!(condition)) {                                       \
      std::ostringstream bitinfer_check_text;                 \
      bitinfer_check_text << message;                         \
      throw std::invalid_argument(bitinfer_check_text.str()); \
    }                                                         \
  } while (false)
