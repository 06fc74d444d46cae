//! `hark doctor`: tells an operator what works here and what is missing. Changes nothing.

use super::{audio, config::ServeConfig, speech::Engines};

/// Prints the findings. True if a recording could be transcribed.
#[must_use]
pub fn report(config: &ServeConfig) -> bool {
    let engines = Engines::from_config(&config.engines, &config.data.data_dir);
    let mut usable = false;
    for engine in engines.list() {
        let default = if engine.is_default { ", the default" } else { "" };
        if engine.available {
            usable |= engine.is_default;
            println!("ok       engine {} (model {}{default})", engine.id, engine.model);
        } else {
            println!("missing  engine {}{default}: {}", engine.id, engine.reason.unwrap_or_default());
            if let Some(install) = engine.install {
                println!("         to make it available: {install}");
            }
        }
    }
    if audio::ffmpeg_available() {
        println!("ok       ffmpeg takes the formats that Hark can't read by itself");
    } else {
        println!("missing  ffmpeg: only the common formats can be read. To add others: apt-get install ffmpeg");
    }
    let folder = &config.data.data_dir;
    match std::fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => println!("ok       data folder {}", folder.display()),
        Ok(_) => println!("wrong    {} is not a folder; choose another with HARK_DATA_DIR", folder.display()),
        Err(_) => println!("ok       data folder {} will be made at the first start", folder.display()),
    }
    usable
}
