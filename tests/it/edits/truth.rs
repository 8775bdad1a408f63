//! What each edit of kontext-tiny should give, by ordinary image code: models/kontext-tiny/train/edits.py
//! again, step by step, so that the model is judged by code that did not train it. The goldens in
//! tests/golden/edits, which the Python makes, hold the two equal.

use darkroom::domain::Pixels;

type Rgb = [f32; 3];

const LUMA: Rgb = [0.299, 0.587, 0.114];

/// A picture of floats, RGB in 0..1.
#[derive(Clone)]
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<Rgb>,
}

/// The edits by name, in the order of edits.py.
pub(crate) const NAMES: [&str; 16] = [
    "black-and-white",
    "sepia",
    "inverted",
    "soft-blur",
    "pixelated",
    "sketch",
    "neon",
    "posterised",
    "warm",
    "cold",
    "night",
    "blueprint",
    "thermal",
    "vintage",
    "vivid",
    "foggy",
];

/// What the edit `name` makes of `picture`.
pub(crate) fn truth(name: &str, picture: &Pixels) -> Option<Pixels> {
    let x = Picture::new(picture);
    let y = match name {
        "black-and-white" => x.map(|p| [luma(p); 3]),
        "sepia" => x.tone([30, 15, 5], [150, 110, 70], [255, 240, 205]),
        "inverted" => x.map(|p| p.map(|v| 1.0 - v)),
        "soft-blur" => x.gaussian(4.0).map(|p| scale(p, [0.8; 3], [0.2; 3])),
        "pixelated" => x.pixelated(),
        "sketch" => {
            let edges = x.edges(1.5);
            x.zip(&edges, |p, [edge, ..]| {
                let lines = 1.0 - (7.0 * edge).clamp(0.0, 0.85);
                [lines * (0.75 + 0.25 * luma(p)); 3]
            })
        }
        "neon" => x.edges(2.0).map(|[edge, ..]| {
            let glow = (10.0 * edge).clamp(0.0, 1.0);
            [glow * 0.1 + 0.08, glow, glow * 0.9 + 0.15]
        }),
        "posterised" => x.gaussian(1.5).map(|p| saturate(p, 1.8).map(three_levels)),
        "warm" => x.map(|p| scale(p, [1.2, 0.92, 0.5], [0.12, 0.04, 0.0])),
        "cold" => x.map(|p| scale(p, [0.55, 0.92, 1.05], [0.0, 0.08, 0.2])),
        "night" => x.map(|p| scale(p.map(|v| v.powf(1.5)), [0.35, 0.42, 0.7], [0.0; 3])),
        "blueprint" => x.tone([5, 15, 70], [20, 80, 185], [230, 240, 255]),
        "thermal" => x.tone([20, 0, 80], [220, 40, 60], [255, 245, 120]),
        "vintage" => x.map(|p| scale(saturate(p, 0.4), [0.6; 3], [0.30, 0.24, 0.14])),
        "vivid" => x.map(|p| saturate(p, 1.8).map(|v| (v - 0.5) * 1.4 + 0.5)),
        "foggy" => x.gaussian(1.5).map(|p| scale(p, [0.35; 3], [0.55, 0.58, 0.62])),
        _ => return None,
    };
    y.pixels()
}

fn luma(p: Rgb) -> f32 {
    p[0] * LUMA[0] + p[1] * LUMA[1] + p[2] * LUMA[2]
}

fn scale(p: Rgb, by: Rgb, plus: Rgb) -> Rgb {
    [p[0] * by[0] + plus[0], p[1] * by[1] + plus[1], p[2] * by[2] + plus[2]]
}

/// luma + amount * (p - luma)
fn saturate(p: Rgb, amount: f32) -> Rgb {
    let l = luma(p);
    p.map(|v| l + amount * (v - l))
}

/// 0, 0.5 or 1, with short ramps between.
fn three_levels(v: f32) -> f32 {
    let y = 2.0 * v.clamp(0.0, 1.0);
    let level = y.floor();
    (level + ((y - level - 0.5) / 0.3 + 0.5).clamp(0.0, 1.0)) / 2.0
}

impl Picture {
    fn new(picture: &Pixels) -> Self {
        let pixels =
            picture.rgb().chunks_exact(3).map(|p| [p[0], p[1], p[2]].map(|v| f32::from(v) / 255.0));
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        Self { width, height, pixels: pixels.collect() }
    }

    fn pixels(&self) -> Option<Pixels> {
        let byte = |v: f32| (v.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
        let rgb = self.pixels.iter().flatten().map(|&v| byte(v)).collect();
        Pixels::new(self.width as u32, self.height as u32, rgb)
    }

    fn map(&self, f: impl Fn(Rgb) -> Rgb) -> Self {
        Self { pixels: self.pixels.iter().map(|&p| f(p)).collect(), ..*self }
    }

    fn zip(&self, other: &Self, f: impl Fn(Rgb, Rgb) -> Rgb) -> Self {
        let pairs = self.pixels.iter().zip(&other.pixels);
        Self { pixels: pairs.map(|(&a, &b)| f(a, b)).collect(), ..*self }
    }

    /// The pixel at (x, y); outside the picture the nearest edge pixel.
    fn at(&self, x: isize, y: isize) -> Rgb {
        let inside = |v: isize, size: usize| v.clamp(0, size as isize - 1) as usize;
        self.pixels[inside(y, self.height) * self.width + inside(x, self.width)]
    }

    /// A new picture from a function of x and y.
    fn each_place(&self, f: impl Fn(isize, isize) -> Rgb) -> Self {
        let places =
            (0..self.height as isize).flat_map(|y| (0..self.width as isize).map(move |x| (x, y)));
        Self { pixels: places.map(|(x, y)| f(x, y)).collect(), ..*self }
    }

    /// A true Gaussian kernel of radius ceil(3 sigma), down the columns, then along the rows.
    fn gaussian(&self, sigma: f32) -> Self {
        let r = (3.0 * sigma).ceil() as isize;
        let kernel: Vec<f32> =
            (-r..=r).map(|i| (-((i * i) as f32) / (2.0 * sigma * sigma)).exp()).collect();
        let sum: f32 = kernel.iter().sum();
        let along = |picture: &Self, dx: isize, dy: isize| {
            picture.each_place(|x, y| {
                let mut total = [0.0; 3];
                for (weight, i) in kernel.iter().zip(-r..=r) {
                    let p = picture.at(x + i * dx, y + i * dy);
                    total = std::array::from_fn(|c| total[c] + weight / sum * p[c]);
                }
                total
            })
        };
        along(&along(self, 0, 1), 1, 0)
    }

    /// A ramp of colours by luma: dark at 0, middle at 0.5, light at 1.
    fn tone(&self, dark: [u8; 3], middle: [u8; 3], light: [u8; 3]) -> Self {
        let [dark, middle, light] = [dark, middle, light].map(|c| c.map(|v| f32::from(v) / 255.0));
        self.map(|p| {
            let l = luma(p);
            let (from, to, t) =
                if l < 0.5 { (dark, middle, 2.0 * l) } else { (middle, light, 2.0 * l - 1.0) };
            std::array::from_fn(|c| from[c] + (to[c] - from[c]) * t)
        })
    }

    /// Blocks of 8 by 8 from the top left corner, each its mean.
    fn pixelated(&self) -> Self {
        self.each_place(|x, y| {
            let (left, top) = (x / 8 * 8, y / 8 * 8);
            let (right, bottom) =
                ((left + 8).min(self.width as isize), (top + 8).min(self.height as isize));
            let block = (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y)));
            let mut sum = [0.0; 3];
            for (x, y) in block {
                let p = self.at(x, y);
                sum = std::array::from_fn(|c| sum[c] + p[c]);
            }
            sum.map(|v| v / ((right - left) * (bottom - top)) as f32)
        })
    }

    /// The length of the gradient of the blurred luma, in every channel.
    fn edges(&self, sigma: f32) -> Self {
        let soft = self.map(|p| [luma(p); 3]).gaussian(sigma);
        // Central differences; at the border one-sided over one pixel.
        let slope = |before: f32, after: f32, at_border: bool| {
            (after - before) / if at_border { 1.0 } else { 2.0 }
        };
        soft.each_place(|x, y| {
            let value = |x, y| soft.at(x, y)[0];
            let (w, h) = (soft.width as isize, soft.height as isize);
            let across = slope(value(x - 1, y), value(x + 1, y), x == 0 || x == w - 1);
            let down = slope(value(x, y - 1), value(x, y + 1), y == 0 || y == h - 1);
            [across.hypot(down); 3]
        })
    }
}
