#pragma once
// Everything a program needs: `#include <towline/towline.hpp>`.

#include <towline/engine.hpp>
