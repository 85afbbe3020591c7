//! A plain `SwitchConf` in, the files of a switch out.
