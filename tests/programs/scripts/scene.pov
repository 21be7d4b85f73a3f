// A small scene: enough reflection and shadow for a second or two of work.
#version 3.7;
global_settings { assumed_gamma 1.0 max_trace_level 6 }
camera { location <0, 3, -8> look_at <0, 1, 0> }
light_source { <6, 10, -8> color rgb 1 }
light_source { <-8, 6, -4> color rgb <0.4, 0.4, 0.6> }
plane { y, 0 pigment { checker color rgb 0.9 color rgb 0.2 } finish { reflection 0.2 } }
#declare N = 0;
#while (N < 12)
  sphere {
    <4 * sin(N * pi / 6), 1 + 0.5 * sin(N), 4 * cos(N * pi / 6)>, 0.8
    pigment { color rgb <0.5 + 0.5 * sin(N), 0.5 + 0.5 * cos(N), 0.7> }
    finish { phong 0.8 reflection 0.35 }
  }
  #declare N = N + 1;
#end
