"""The configurations that scripts/goldens/golden_schedulers.py draws from: every key of every class, with the values it may have.

A list is drawn from; a tuple holds the ends of a range of numbers."""

SCHEDULES = ["linear", "scaled_linear", "squaredcos_cap_v2"]
SPACINGS = ["linspace", "leading", "trailing"]
COMMON = {
    "num_train_timesteps": [1000, 1000, 1000, 100, 50],
    "beta_start": (0.0001, 0.003),
    "beta_end": (0.008, 0.025),
    "beta_schedule": SCHEDULES,
    "timestep_spacing": SPACINGS,
    "steps_offset": [0, 1],
}
THRESHOLDING = {
    "thresholding": [False, False, True],
    "dynamic_thresholding_ratio": (0.5, 1.0),
    "sample_max_value": (1.0, 3.0),
}
CLIPPING = {"clip_sample": [True, False, False], "clip_sample_range": (0.5, 3.0)}
ZERO_SNR = {"rescale_betas_zero_snr": [False, False, True]}
RAMPS = {
    "use_karras_sigmas": [False, False, False, True],
    "use_exponential_sigmas": [False, False, False, False, True],
    "use_beta_sigmas": [False, False, False, False, True],
}
THREE = ["epsilon", "sample", "v_prediction"]
TWO = ["epsilon", "v_prediction"]
FOUR = THREE + ["flow_prediction"]
CHURN = {
    "s_churn": (0.0, 20.0),
    "s_tmin": [0.0, 0.5],
    "s_tmax": [float("inf"), 10.0],
    "s_noise": (0.98, 1.01),
}
SOLVER = {
    **COMMON,
    **ZERO_SNR,
    **THRESHOLDING,
    **RAMPS,
    "use_flow_sigmas": [False, False, False, True],
    "flow_shift": (0.5, 6.0),
    "prediction_type": FOUR,
    "lower_order_final": [True, False],
}
SHIFTING = {"use_dynamic_shifting": [False, False, True], "time_shift_type": ["exponential", "exponential", "linear"]}
LAMBDAS = {"lambda_min_clipped": [-float("inf"), -5.1, -3.0, -4.2]}
VARIANCE = {"variance_type": [None, None, "learned", "learned_range", "fixed_small"]}
# Predictors instead of UniPC's. Euler scales its samples differently and is rejected.
PREDICTORS = [
    None,
    None,
    None,
    {"_class_name": "DPMSolverMultistepScheduler"},
    {"_class_name": "DEISMultistepScheduler", "solver_order": 3},
    {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
    {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing", "clip_sample": False},
]

EDM = {
    "sigma_min": (0.001, 0.05),
    "sigma_max": (10.0, 120.0),
    "sigma_data": (0.3, 1.2),
    "sigma_schedule": ["karras", "exponential"],
    "num_train_timesteps": [1000, 100],
    "rho": (4.0, 9.0),
    "final_sigmas_type": ["zero", "sigma_min"],
}
CONSISTENCY = {
    "original_inference_steps": [50, 50, 20],
    "set_alpha_to_one": [True, False],
    "timestep_scaling": (1.0, 12.0),
    "prediction_type": THREE,
}

# name: (class, order, keys, arguments of step())
GRID = {
    "ddim": (
        "DDIMScheduler",
        1,
        {**COMMON, **THRESHOLDING, **CLIPPING, **ZERO_SNR, "set_alpha_to_one": [True, False], "prediction_type": THREE},
        {"eta": [0.0, 0.25, 0.5, 1.0], "use_clipped_model_output": [True, False]},
    ),
    "ddpm": (
        "DDPMScheduler",
        1,
        {
            **COMMON,
            **THRESHOLDING,
            **CLIPPING,
            **ZERO_SNR,
            "beta_schedule": SCHEDULES + ["sigmoid", "laplace"],
            "variance_type": ["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"],
            "prediction_type": THREE,
        },
        {},
    ),
    "pndm": (
        "PNDMScheduler",
        1,
        {
            **COMMON,
            "skip_prk_steps": [True, False],
            "set_alpha_to_one": [True, False],
            "prediction_type": ["epsilon", "epsilon", "v_prediction", "sample"],
        },
        {},
    ),
    "euler": (
        "EulerDiscreteScheduler",
        1,
        {
            **COMMON,
            **ZERO_SNR,
            **RAMPS,
            "prediction_type": THREE,
            "interpolation_type": ["linear", "linear", "log_linear"],
            "sigma_min": [None, None, 0.05, 0.1],
            "sigma_max": [None, None, 12.0, 20.0],
            "timestep_type": ["discrete", "discrete", "continuous"],
            "final_sigmas_type": ["zero", "sigma_min"],
        },
        CHURN,
    ),
    "euler-ancestral": (
        "EulerAncestralDiscreteScheduler",
        1,
        {**COMMON, **ZERO_SNR, "prediction_type": ["epsilon", "v_prediction", "epsilon", "v_prediction", "sample"]},
        {},
    ),
    "dpm-multistep": (
        "DPMSolverMultistepScheduler",
        1,
        {
            **SOLVER,
            "solver_order": [1, 2, 3, 2, 3, 4],
            "algorithm_type": ["dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver", "deis"],
            "solver_type": ["midpoint", "heun", "bh2"],
            "euler_at_final": [False, False, True],
            "use_lu_lambdas": [False, False, False, True],
            "final_sigmas_type": ["zero", "sigma_min", "sigma_min"],
            **LAMBDAS,
            **VARIANCE,
            **SHIFTING,
        },
        {},
    ),
    "lms": ("LMSDiscreteScheduler", 1, {**COMMON, **RAMPS, "prediction_type": THREE}, {"order": [1, 2, 3, 4]}),
    "heun": (
        "HeunDiscreteScheduler",
        2,
        {**COMMON, **RAMPS, **CLIPPING, "beta_schedule": SCHEDULES + ["exp"], "prediction_type": THREE},
        {},
    ),
    "kdpm2": ("KDPM2DiscreteScheduler", 2, {**COMMON, **RAMPS, "prediction_type": TWO}, {}),
    "kdpm2-ancestral": ("KDPM2AncestralDiscreteScheduler", 2, {**COMMON, **RAMPS, "prediction_type": TWO}, {}),
    "dpm-singlestep": (
        "DPMSolverSinglestepScheduler",
        1,
        {
            **{k: v for k, v in SOLVER.items() if k not in (*ZERO_SNR, "timestep_spacing", "steps_offset")},
            "solver_order": [1, 2, 3],
            "algorithm_type": ["dpmsolver++", "sde-dpmsolver++", "dpmsolver", "deis"],
            "solver_type": ["midpoint", "heun", "bh2"],
            "final_sigmas_type": ["zero", "sigma_min", "sigma_min"],
            **LAMBDAS,
            **VARIANCE,
            **SHIFTING,
        },
        {},
    ),
    "dpm-sde": (
        "DPMSolverSDEScheduler",
        2,
        {**COMMON, **RAMPS, "prediction_type": TWO, "noise_sampler_seed": [None, 0, 7, 2**40 + 3]},
        {"s_noise": (0.8, 1.01)},
    ),
    "deis": (
        "DEISMultistepScheduler",
        1,
        {
            **{k: v for k, v in SOLVER.items() if k not in ZERO_SNR},
            "solver_order": [1, 2, 3, 2, 3, 4],
            "algorithm_type": ["deis", "dpmsolver++"],
            **SHIFTING,
            "solver_type": ["logrho", "midpoint"],
        },
        {},
    ),
    "unipc": (
        "UniPCMultistepScheduler",
        1,
        {
            **SOLVER,
            "solver_order": [1, 2, 3, 2, 4],
            "predict_x0": [True, True, False],
            "solver_type": ["bh1", "bh2", "midpoint"],
            "disable_corrector": [[], [0], [1, 2]],
            "final_sigmas_type": ["zero", "sigma_min"],
            **SHIFTING,
            "solver_p": PREDICTORS,
            "sigma_min": [None, None, 0.05, 0.1],
            "sigma_max": [None, None, 12.0, 20.0],
            "shift_terminal": [None, None, None, 0.05],
        },
        {},
    ),
    "ipndm": ("IPNDMScheduler", 1, {"num_train_timesteps": [1000, 100]}, {}),
    "edm-euler": ("EDMEulerScheduler", 1, {**EDM, "prediction_type": TWO}, CHURN),
    "edm-dpm-multistep": (
        "EDMDPMSolverMultistepScheduler",
        1,
        {
            **EDM,
            **THRESHOLDING,
            "prediction_type": TWO,
            "solver_order": [1, 2, 3],
            "algorithm_type": ["dpmsolver++", "sde-dpmsolver++", "deis"],
            "solver_type": ["midpoint", "heun", "bh2"],
            "lower_order_final": [True, False],
            "euler_at_final": [False, False, True],
        },
        {},
    ),
    "lcm": ("LCMScheduler", 1, {**COMMON, **THRESHOLDING, **CLIPPING, **ZERO_SNR, **CONSISTENCY}, {}),
    "tcd": (
        "TCDScheduler",
        1,
        {**COMMON, **THRESHOLDING, **CLIPPING, **ZERO_SNR, **CONSISTENCY},
        {"eta": (0.0, 1.0)},
    ),
    "flow-match-euler": (
        "FlowMatchEulerDiscreteScheduler",
        1,
        {
            **RAMPS,
            "num_train_timesteps": COMMON["num_train_timesteps"],
            "shift": (0.5, 6.0),
            "use_dynamic_shifting": [False, False, True],
            "time_shift_type": ["exponential", "linear"],
            "shift_terminal": [None, None, 0.02, 0.1],
            "invert_sigmas": [False, False, False, True],
            "stochastic_sampling": [False, False, True],
        },
        {},
    ),
    "flow-match-heun": (
        "FlowMatchHeunDiscreteScheduler",
        2,
        {"num_train_timesteps": COMMON["num_train_timesteps"], "shift": (0.5, 6.0)},
        CHURN,
    ),
    "sa-solver": (
        "SASolverScheduler",
        1,
        {
            **{k: v for k, v in SOLVER.items() if k not in ZERO_SNR},
            **LAMBDAS,
            **VARIANCE,
            "predictor_order": [1, 2, 3, 4, 2],
            "corrector_order": [1, 2, 3, 4, 2],
            "algorithm_type": ["data_prediction", "data_prediction", "noise_prediction"],
        },
        {"tau": [0.0, 0.5, 1.0, 1.5, 0.7], "tau_start": [0.0, 100.0, 200.0, 350.0], "tau_end": [600.0, 800.0, 1000.0]},
    ),
    "scm": (
        "SCMScheduler",
        1,
        {"num_train_timesteps": [1000, 100], "prediction_type": ["trigflow"], "sigma_data": (0.3, 1.2)},
        {"max_timesteps": (1.2, 1.5708), "intermediate_timesteps": [1.3, 1.1, 0.7]},
    ),
    "ddim-inverse": (
        "DDIMInverseScheduler",
        1,
        {
            **COMMON,
            **CLIPPING,
            **ZERO_SNR,
            "timestep_spacing": ["leading", "leading", "trailing", "linspace"],
            "set_alpha_to_one": [True, False],
            "set_alpha_to_zero": [None, True, False],
            "prediction_type": THREE,
        },
        {},
    ),
    "dpm-multistep-inverse": (
        "DPMSolverMultistepInverseScheduler",
        1,
        {
            **{k: v for k, v in SOLVER.items() if k not in ZERO_SNR},
            **LAMBDAS,
            **VARIANCE,
            "solver_order": [1, 2, 3, 2, 3, 4],
            "algorithm_type": ["dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver", "deis"],
            "solver_type": ["midpoint", "heun", "bh2"],
            "euler_at_final": [False, False, True],
        },
        {},
    ),
}
