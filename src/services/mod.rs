//! What the appliance does, whoever asks and over whatever wire.
