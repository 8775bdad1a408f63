//! All that is done with a file of weights before a model is built from it.

use darkroom::model::weights::{Part, Target, Weights, header::Header};
use std::path::Path;

/// Opens `bytes` as each part, and reads the configuration, the vocabulary and every tensor.
pub(crate) fn weights(bytes: &[u8]) {
    if Header::read(bytes).is_err() {
        return;
    }
    for part in Part::ALL {
        let path = Path::new("fuzz");
        let Ok(weights) = Weights::in_memory(path, bytes.to_vec(), part, &Target::cpu()) else {
            continue;
        };
        let _ = weights.implied_config();
        let _ = weights.vocabulary();
        for (name, shape) in weights.shapes() {
            let _ = weights.host(name, shape);
            if let [n, k] = *shape
                && let Ok(stored) = weights.stored(name, n, k)
            {
                assert_eq!(stored.rows(&[0]).is_some(), n > 0);
                let _ = stored.matrix();
            }
        }
    }
}
