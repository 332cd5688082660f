//! Putting a box together: settings to options, and the order of start and stop.
