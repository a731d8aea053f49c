// What a container of the test bed runs: it waits until it is told to end.
module whereabouts.dev/runtime/pause

go 1.24.0
