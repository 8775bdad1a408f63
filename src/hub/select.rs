//! Which files of a repository, or of a folder, make up a model.

use super::{
    HubError,
    path::{is_licence, is_part_of_a_model, is_weights},
};

/// Files, each with its path in the model's folder.
pub(super) type Files = Vec<(String, String)>;

/// What `path`, a file or a folder, has of a model, each with its place below `into`.
pub(super) fn part(files: &[String], path: &str, into: &str) -> Files {
    let place = |file: &String| {
        if !path.ends_with('/') {
            return (file == path).then(|| (file.clone(), into.to_owned()));
        }
        let rest = file.strip_prefix(path).filter(|_| is_part_of_a_model(file))?;
        Some((file.clone(), format!("{into}/{rest}")))
    };
    files.iter().filter_map(place).collect()
}

/// What makes up a model of a repository that no manifest names: its folders in the diffusers
/// layout, or else one file of weights. The second is the file that was chosen.
pub(super) fn whole(
    files: &[String],
    repo: &str,
    folders: &[String],
    variant: &str,
) -> Result<(Files, String), HubError> {
    let same = |file: &String| (file.clone(), file.clone());
    let licences = files.iter().filter(|file| is_licence(file)).map(same);
    if files.iter().any(|file| file == "model_index.json") {
        let within = |file: &&String| {
            let folder = file.split_once('/').map(|(folder, _)| folder);
            let part = folder.is_some_and(|folder| folders.iter().any(|name| name == folder));
            *file == "model_index.json" || (part && is_part_of_a_model(file))
        };
        return Ok((
            files.iter().filter(within).map(same).chain(licences).collect(),
            String::new(),
        ));
    }
    let weights: Vec<&String> = files.iter().filter(|file| is_weights(file)).collect();
    let name = |file: &str| file.rsplit_once('/').map_or(file, |(_, name)| name).to_owned();
    let chosen = match weights[..] {
        [] => return Ok((Vec::new(), String::new())),
        [only] if variant.is_empty() => only,
        _ => {
            let wanted = weights.iter().find(|file| name(file) == variant);
            let names: Vec<String> = weights.iter().map(|file| name(file)).collect();
            wanted.ok_or_else(|| HubError::Choose {
                repo: repo.to_owned(),
                files: names.join(", "),
            })?
        }
    };
    let file = std::iter::once((chosen.clone(), name(chosen)));
    Ok((file.chain(licences).collect(), name(chosen)))
}
