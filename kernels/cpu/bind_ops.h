// The part of the native module that the ops use.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

void bind_ops(nanobind::module_& m);
